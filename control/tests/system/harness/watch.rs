//! A process that takes a lab down when the test was killed and could not.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// It reads what to do, and then waits for a word that it need not. When the test ends without it, the pipe closes,
/// and it ends whatever runs in the lab's namespaces, takes the lab down, and removes its directory.
const SCRIPT: &str = r#"
read program; read lab; read directory
read word && exit
for namespace in /run/netns/"$lab"-*; do
  pids=$(ip netns pids "${namespace##*/}") && [ -n "$pids" ] && kill -9 $pids
done
export LOCALVPC_RUN_DIR="$directory"
"$program" down --lab "$lab"
rm -rf "$directory"
"#;

/// The process. Leaves its post when dropped.
#[derive(Debug)]
pub struct Watch(Child);

impl Watch {
    /// Watches over a lab from now on.
    pub fn over(lab: &str, directory: &Path) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The test runner signals the test's process group.
            .process_group(0)
            .spawn()
            .expect("a shell");
        // Not by its arguments or environment: those would make it one of the lab's own processes.
        let orders = format!("{}\n{lab}\n{}\n", env!("CARGO_BIN_EXE_localvpc"), directory.display());
        // `piped` above.
        child.stdin.as_mut().unwrap().write_all(orders.as_bytes()).expect("the shell reads");
        Self(child)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // When it is gone there is nobody to be told.
        let _ = self.0.stdin.take().map(|mut pipe| pipe.write_all(b"done\n"));
        let _ = self.0.wait();
    }
}
