//! `localvpc serve`: the built-in web server.

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use super::{Failure, output};
use crate::serve::{Mode, Options};

/// Serve a web page that says who reached it, for the far end of a lab's connections
///
/// Every path answers `you are 203.0.113.20:40312`: the address and port that arrived here, so that curl shows what
/// NAT did on the way. It is plain HTTP on every port, on 443 too: use http://HOST:443/.
#[derive(Debug, clap::Args)]
#[command(after_help = r#"Paths:
  /bytes/N   N bytes of zeros, up to 16 GiB, for throughput
  /hold      stays open: GET sends a line each second, PUT and POST send each line back as it comes
  any other  you are ADDRESS:PORT; with `Accept: application/json`
             {"you":{"address","port"},"me":{"address","port"},"host","method","path"}

Examples:
  localvpc serve 8080
  localvpc serve 80 443 --bind 198.51.100.10
  localvpc serve 5432 --echo                      bare TCP: every byte goes back
  curl -s -H 'Accept: application/json' http://198.51.100.10/
  curl -s -T . http://198.51.100.10/hold          type lines; the connection stays open"#)]
pub struct Args {
    /// TCP ports; 0 lets the kernel choose
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<u16>,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", env = "LOCALVPC_ADDRESS", default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    bind: IpAddr,
    /// Send every byte back instead of speaking HTTP
    #[arg(long)]
    echo: bool,
}

pub fn run(args: Args) -> Result<ExitCode, Failure> {
    let options = Options {
        bind: args.bind,
        ports: args.ports,
        host: std::env::var("LOCALVPC_INSTANCE").ok(),
        mode: if args.echo { Mode::Echo } else { Mode::Http },
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| Failure::System { action: "start the server", source })?;
    runtime.block_on(crate::serve::run(options, |address| {
        // A server whose output nobody reads serves all the same.
        let _ = output::print(&format!("listening on {address}\n"));
    }))?;
    Ok(ExitCode::SUCCESS)
}
