//! What the README promises: its commands run, and print what it says they print.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::harness::Lab;
use crate::harness::command::run;
use crate::harness::leftovers;

const README: &str = include_str!("../../../README.md");
const BROKEN: &str = include_str!("broken.yaml");

/// A command of a console block, and the output that stands below it.
struct Shown {
    command: String,
    output: String,
}

/// The commands of the console block that has `part` in it.
fn shown(part: &str) -> Vec<Shown> {
    let blocks = README.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let block = blocks.into_iter().find(|block| block.contains(part)).expect("the README has such a block");
    let mut commands: Vec<Shown> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => {
                let command = command.split("  #").next().unwrap_or(command).trim();
                let command = command.strip_prefix("sudo ").unwrap_or(command).to_owned();
                commands.push(Shown { command, output: String::new() });
            }
            (None, Some(last)) => {
                last.output.push_str(line);
                last.output.push('\n');
            }
            (None, None) => panic!("output before the first command: {line}"),
        }
    }
    commands
}

#[test]
fn the_first_screen_is_true() {
    let Some(lab) = Lab::new() else { return };
    fs::create_dir(lab.run_dir().join("configs")).unwrap();
    let text = include_str!("../../../configs/two-tier.yaml");
    let text = text.replace("\nlab: two-tier\n", &format!("\nlab: {}\n", lab.name));
    fs::write(lab.run_dir().join("configs/two-tier.yaml"), text).unwrap();
    let commands = shown("localvpc up configs/two-tier.yaml");
    assert_eq!(commands.len(), 4, "up, exec, explain, down");
    for Shown { command, output } in commands {
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let done = lab.localvpc(&words);
        let blocked = output.contains("blocked");
        let done = done.exits(i32::from(blocked));
        match output.rsplit_once("you are 203.0.113.20:") {
            // The port is the NAT gateway's choice.
            Some(_) => assert!(done.stdout.starts_with("you are 203.0.113.20:"), "{done}"),
            None if output.is_empty() => {}
            None => assert_eq!(trimmed(&done.stdout), trimmed(&output)),
        }
        if command.contains(" up ") {
            lab.wait_for_servers();
        }
    }
    lab.nothing_is_left();
}

#[test]
fn the_second_screen_is_true() {
    let Some(lab) = Lab::up(include_str!("../../../configs/two-tier.yaml")) else { return };
    fs::create_dir(lab.run_dir().join("configs")).unwrap();
    fs::copy(lab.file(), lab.run_dir().join("configs/two-tier.yaml")).unwrap();
    let commands = shown("localvpc check configs/two-tier.yaml");
    assert_eq!(commands.len(), 2, "check, explain");
    for Shown { command, output } in commands {
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let done = lab.localvpc(&words).exits(i32::from(command.contains("explain")));
        let said = done.stdout.replace(&format!("lab {}", lab.name), "lab two-tier");
        assert_eq!(trimmed(&said), trimmed(&output));
    }
}

#[test]
fn the_broken_file_is_refused_as_shown() {
    let Some(lab) = Lab::new() else { return };
    fs::write(lab.run_dir().join("broken.yaml"), BROKEN).unwrap();
    let [Shown { command, output }] = &shown("validate broken.yaml")[..] else { panic!("one command") };
    let words: Vec<_> = command.split_whitespace().skip(1).collect();
    let done = lab.localvpc(&words).exits(1);
    assert_eq!(trimmed(&done.stderr), trimmed(output));
}

#[test]
fn load_the_demo_runs_to_its_end() {
    let Some(lab) = Lab::new() else { return };
    assert!(shown("./scripts/demo").iter().any(|it| it.command == "./scripts/demo"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    // target/debug/localvpc
    let target = Path::new(env!("CARGO_BIN_EXE_localvpc")).ancestors().nth(2).expect("a target directory");
    let name = format!("{}d", lab.name);
    let mut demo = Command::new(root.join("scripts/demo"));
    demo.env("PROFILE", "dev").env("LAB", &name).env("CARGO_TARGET_DIR", target);
    demo.env("LOCALVPC_RUN_DIR", lab.run_dir()).env_remove("LOCALVPC_LAB");
    let done = run(&mut demo).ok();
    for step in 1..=8 {
        assert!(done.stdout.contains(&format!("== {step}. ")), "{done}");
    }
    assert!(done.stdout.contains("== that was localvpc"), "{done}");
    assert_eq!(leftovers::namespaces(&name), Vec::<String>::new());
}

fn trimmed(text: &str) -> String {
    text.trim().lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
