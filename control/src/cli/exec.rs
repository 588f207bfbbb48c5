//! `localvpc exec`: run a command where an instance is.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use super::client::Client;
use super::{Failure, Global, is_root};
use crate::host::{self, NamespaceRef};
use crate::view::{InstanceView, StatusView};

/// Run a command where an instance is; its exit status is the command's
///
/// Where instances share a namespace, a command sends from the namespace's first address unless it is told
/// otherwise. For the other instances `exec` therefore refuses, unless their address is among the command's
/// arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo localvpc exec app -- curl -s http://198.51.100.10/
  sudo localvpc exec web -- ping -c1 10.0.2.20
  sudo localvpc exec internet -- curl -s http://203.0.113.10/       the first internet host
  sudo localvpc exec b -- curl -s --interface 10.0.3.11 http://10.0.2.20/
  sudo ip netns exec two-tier-app curl -s http://198.51.100.10/     the same without us")]
pub struct Args {
    /// An instance or internet host; `internet` is the first internet host
    instance: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    enter("exec", &args.instance, args.command, global)
}

/// The instance or internet host of that name.
pub fn find<'a>(status: &'a StatusView, name: &str) -> Result<&'a InstanceView, Failure> {
    let is_host = |instance: &&InstanceView| instance.vpc.is_empty();
    let mut all = status.instances.iter();
    let found = all.clone().find(|instance| {
        instance.name == name
            || (!instance.vpc.is_empty() && format!("{}/{}", instance.vpc, instance.name) == name)
    });
    match found {
        Some(instance) => Ok(instance),
        None if name == "internet" && all.clone().any(|instance| is_host(&instance)) => {
            // `any` has just seen one.
            Ok(all.find(is_host).unwrap())
        }
        None => Err(Failure::NotFound {
            what: "instance".into(),
            name: name.into(),
            lab: status.lab.clone(),
            known: status.instances.iter().map(|instance| instance.name.clone()).collect(),
        }),
    }
}

/// Becomes the command, in the instance's namespace. Returns only failures, and shells' 126 and 127.
pub fn enter(
    verb: &'static str,
    name: &str,
    command: Vec<OsString>,
    global: &Global,
) -> Result<ExitCode, Failure> {
    let client = Client::of(global)?;
    if !is_root() {
        return Err(Failure::NeedsRoot { verb });
    }
    let status: StatusView = client.ask("/v1/status")?;
    let instance = find(&status, name)?;
    let namespace = NamespaceRef::of(&client.run_dir, &instance.namespace);
    drop(client);
    host::enter(&namespace)?;
    check_source(instance, &command)?;

    // `clap` requires a first word.
    let program =
        if command[0] == "localvpc" { OsString::from("/proc/self/exe") } else { command[0].clone() };
    let source = Command::new(program)
        .args(&command[1..])
        .env("LOCALVPC_LAB", &status.lab)
        .env("LOCALVPC_INSTANCE", &instance.name)
        .env("LOCALVPC_ADDRESS", instance.ip.to_string())
        // The prompt of Debian's and Ubuntu's shells shows it.
        .env("debian_chroot", &instance.name)
        .exec();
    let code = if source.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    let failure = Failure::Command { command: command[0].to_string_lossy().into_owned(), source };
    super::output::say(&failure.message());
    Ok(ExitCode::from(code))
}

/// Refuses where the command would speak with another instance's address.
fn check_source(instance: &InstanceView, command: &[OsString]) -> Result<(), Failure> {
    let ours = instance.ip.to_string();
    let told = command[1..]
        .iter()
        .any(|argument| argument.to_string_lossy().split(['=', ',', ':', '!']).any(|part| part == ours));
    match preferred_source() {
        Some(source) if source != instance.ip && !told => Err(Failure::WrongSource(format!(
            "{name} shares namespace {namespace}, where commands send from {source} unless they are told otherwise, so \
             this would not be {name} speaking. Tell the command its address {ours}, for example: \
             localvpc exec {name} -- curl --interface {ours} URL",
            name = instance.name,
            namespace = instance.namespace,
        ))),
        _ => Ok(()),
    }
}

/// The address from which this namespace sends to the internet, or else anywhere in a VPC. Connecting a UDP socket
/// makes the kernel choose, and sends nothing.
fn preferred_source() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let somewhere = [Ipv4Addr::new(198, 51, 100, 1), Ipv4Addr::new(10, 0, 0, 1)];
    somewhere.into_iter().find_map(|address| {
        socket.connect(SocketAddr::from((address, 9))).ok()?;
        socket
            .local_addr()
            .ok()
            .map(|local| local.ip())
            .filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
    })
}
