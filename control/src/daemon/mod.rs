//! The daemon of a lab: HTTP and JSON on `control.sock`, until the lab is taken down.
//!
//! ```text
//! POST /v1/apply        ApplyRequest    one ApplyEvent per line, as it goes
//! POST /v1/plan         ApplyRequest    Plan
//! GET  /v1/status                       StatusView
//! GET  /v1/resources                    [ResourceView]
//! GET  /v1/counters                     CountersView
//! GET  /v1/connections                  [Named<Connection>]    by ENI
//! GET  /v1/nat                          [Named<Lease>]         by NAT gateway
//! POST /v1/down                         replies when everything is gone; then the daemon ends
//! ```
//!
//! An error is an [`ErrorView`](crate::view::ErrorView) with a status of 4xx or 5xx. A daemon that starts where another
//! one was killed takes its lab over: packets did not stop, and do not now.
//!
//! - `lab`: what the requests do, one blocking function each
//! - `names`: the dataplane's rows with the names of the file
//! - `http`: how they come in

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::host::{Error, Host, RunDir};

mod http;
mod lab;
mod names;

use lab::Lab;

/// How often attached namespaces are looked after.
const ATTACHED_CHECK: Duration = Duration::from_secs(2);

/// Runs the daemon of a lab until `/v1/down`, SIGTERM or SIGINT, each of which takes the lab down. `ready` is called
/// once requests are accepted. Logs go to standard error.
///
/// # Errors
///
/// [`Error::Busy`] when the lab has a daemon; else whatever keeps it from starting.
pub fn run(run_dir: RunDir, ready: impl FnOnce()) -> Result<(), Error> {
    log_to_stderr();
    let lab = Arc::new(Lab::open(Host::open(&run_dir)?, &run_dir));
    let system = |action: &str| {
        let action = action.to_owned();
        move |source| Error::System { action, source }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(system("start the daemon's threads"))?;
    let served = runtime.block_on(async {
        let socket = run_dir.control_socket();
        // A dead predecessor's: the lab is ours alone.
        let _ = std::fs::remove_file(&socket);
        let listener =
            tokio::net::UnixListener::bind(&socket).map_err(system("listen on the control socket"))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660))
            .map_err(system("set the permissions of the control socket"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("wait for signals"))?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("wait for signals"))?;
        ready();
        tracing::info!(lab = run_dir.lab(), "accepting requests");

        tokio::spawn(look_after_attached(lab.clone()));
        let ended = lab.clone();
        let server = axum::serve(listener, http::routes(lab.clone()))
            .with_graceful_shutdown(async move { ended.ended().await });
        let told = tokio::select! {
            result = server => return result.map_err(system("serve requests")),
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!("{told}: taking the lab down");
        let done = tokio::task::spawn_blocking(move || lab.down()).await;
        if let Ok(Err(error)) = done {
            tracing::error!(error = error.message, "the lab is not down");
        }
        Ok(())
    });
    // Threads in the middle of a request to a dataplane that is gone need not be waited for.
    runtime.shutdown_timeout(Duration::from_millis(200));
    served
}

async fn look_after_attached(lab: Arc<Lab>) {
    let mut clock = tokio::time::interval(ATTACHED_CHECK);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let lab = lab.clone();
        if tokio::task::spawn_blocking(move || lab.release_ended()).await.is_err() {
            return;
        }
    }
}

fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    // Fails where the caller logs already: then it goes there.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .try_init();
}
