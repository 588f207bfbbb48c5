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
/// Where instances share a namespace, or one was attached that has a way of its own, a command sends from another
/// address unless it is told otherwise. `exec` then refuses, unless the instance's address is among the command's
/// arguments, or --any-address says that it does not matter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sudo localvpc exec app -- curl -s http://198.51.100.10/
  sudo localvpc exec web -- ping -c1 10.0.2.20
  sudo localvpc exec internet -- curl -s http://203.0.113.10/       the first internet host
  sudo localvpc exec b -- curl -s --interface 10.0.3.11 http://10.0.2.20/
  sudo localvpc exec --any-address b -- ip address
  sudo ip netns exec two-tier-app curl -s http://198.51.100.10/     the same without us")]
pub struct Args {
    /// Run it also where it would send from another address than the instance's
    #[arg(long)]
    any_address: bool,
    /// An instance or internet host; `internet` is the first internet host
    instance: String,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub fn run(args: Args, global: &Global) -> Result<ExitCode, Failure> {
    let otherwise = if args.any_address { OtherSource::Allow } else { OtherSource::Refuse };
    enter("exec", &args.instance, args.command, otherwise, global)
}

/// What happens where the command would send from another address than the instance's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherSource {
    /// It is not run.
    Refuse,
    /// It is run, after a note on standard error.
    Note,
    /// It is run.
    Allow,
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
    otherwise: OtherSource,
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
    let source = preferred_source().filter(|source| *source != instance.ip);
    match (source, otherwise) {
        (Some(source), OtherSource::Refuse) if !is_told(instance, &command) => {
            return Err(Failure::WrongSource(refusal(instance, source)));
        }
        (Some(source), OtherSource::Note) => super::output::say(&format!(
            "note: {}; {} has {}, as in `curl --interface {}`",
            why(instance, source),
            instance.name,
            instance.ip,
            instance.ip
        )),
        _ => {}
    }

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

/// Whether the instance's address is among the arguments, so that the command knows which one to take.
fn is_told(instance: &InstanceView, command: &[OsString]) -> bool {
    let secondary = instance.secondary_ips.iter().map(|second| second.ip);
    let ours: Vec<String> = std::iter::once(instance.ip).chain(secondary).map(|ip| ip.to_string()).collect();
    let is_ours = |part: &str| ours.iter().any(|own| own == part);
    command[1..].iter().any(|argument| argument.to_string_lossy().split(['=', ',', ':', '!']).any(is_ours))
}

/// Where commands send from in the instance's namespace, and for what reason: part of a sentence.
fn why(instance: &InstanceView, source: IpAddr) -> String {
    let InstanceView { name, namespace, .. } = instance;
    let where_it_is = match (namespace.starts_with('/'), instance.vpc.is_empty()) {
        (true, _) => format!("{name} is attached to {namespace}, which has another way out"),
        (_, true) => format!("{name} is one of several hosts in namespace {namespace}"),
        (_, false) => format!("{name} shares namespace {namespace} with other instances"),
    };
    format!("{where_it_is}: commands send from {source} unless they are told otherwise")
}

fn refusal(instance: &InstanceView, source: IpAddr) -> String {
    let InstanceView { name, ip, .. } = instance;
    format!(
        "{}, so this would not be {name} speaking. Tell the command its address {ip}, for example `localvpc exec {name} -- \
         curl --interface {ip} URL`, or run it anyway with `--any-address`",
        why(instance, source)
    )
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
