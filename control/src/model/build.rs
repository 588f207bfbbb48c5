//! From a document to a model, collecting every error on the way.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use localvpc_api::message::Offload;

use crate::config::decode::{Named, OneOrMany};
use crate::config::diagnostic::{Diagnostics, nearest, quoted};
use crate::config::document::{LabSection, SubnetSection, VpcSection};
use crate::config::values::{Name, NamespaceMode, OffloadWord, QuotaWord, Text};
use crate::config::{Document, Severity, Span, Spanned, parse};

use super::addresses::{Taken, not_public, pool_range};
use super::expect::expectations;
use super::id::{Kind, resource_id};
use super::vpc::vpc;
use super::{InternetHost, Model, Place, PublicAddress, PublicAddressKind, Vpc, quotas};

impl Model {
    /// Reads and validates a file: its path for messages, and its text. On success what comes beside the
    /// model is its warnings.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn read(path: &str, text: &str) -> Result<(Self, Diagnostics), Diagnostics> {
        Self::from_document(&parse(path, text)?)
    }

    /// The same, with quotas where the file does not speak of any.
    ///
    /// # Errors
    /// As above.
    pub fn read_with_quotas(
        path: &str,
        text: &str,
        quotas: QuotaWord,
    ) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut document = parse(path, text)?;
        document.content.quotas.get_or_insert(Spanned { value: quotas, span: Span::default() });
        Self::from_document(&document)
    }

    /// Validates a document. On success what comes beside the model is its warnings.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn from_document(document: &Document) -> Result<(Self, Diagnostics), Diagnostics> {
        let mut errors = document.problems.clone();
        let content = &document.content;
        let mut lab = Lab { name: content.lab.value.0.clone(), ..Lab::default() };
        let mut hosts = internet_hosts(content, &mut lab, &mut errors);
        let mut vpcs: Vec<Vpc> = content.vpcs.iter().map(|named| vpc(named, &mut lab, &mut errors)).collect();
        public_addresses(content, &mut vpcs, &mut lab, &mut errors);
        implicit_host(&vpcs, &mut hosts, &mut lab);
        warn_about_hidden_hosts(content, &vpcs, &mut errors);
        if content.quotas.is_some_and(|quotas| quotas.value == QuotaWord::Aws) {
            quotas::check(content, &vpcs, &mut errors);
        }
        own_namespaces(content, &lab, &mut errors);
        let expectations = expectations(content, &mut errors);
        errors.sort();
        if errors.has_errors() {
            errors.retain(Severity::Error);
            return Err(errors);
        }
        errors.leave_out_allowed();
        let model = Self {
            file: document.source.path.clone(),
            lab: lab.name,
            vpcs,
            internet_hosts: hosts,
            internet_offload: offload(content.internet.as_ref().and_then(|internet| internet.offload)),
            expectations,
        };
        Ok((model, errors))
    }
}

/// What a file says about a device, or leaves out.
pub fn offload(word: Option<Spanned<OffloadWord>>) -> Offload {
    match word.map(|word| word.value).unwrap_or_default() {
        OffloadWord::On => Offload::VirtioHeader,
        OffloadWord::Off => Offload::Off,
    }
}

/// What has to be unique in the whole lab.
#[derive(Default)]
pub(super) struct Lab {
    /// Its name.
    pub name: String,
    /// Namespaces and host names.
    pub names: BTreeMap<String, (Span, &'static str)>,
    /// Addresses on the internet side.
    pub public: Taken,
    /// Namespaces that instances attach to.
    pub attached: BTreeMap<PathBuf, (Span, String)>,
    /// Instances that asked for an automatic public address, and where.
    pub automatic: Vec<(String, Span)>,
}

/// What every check inside a VPC needs.
pub(super) struct Scope<'a> {
    /// Name of the lab.
    pub lab: &'a str,
    /// The VPC as written.
    pub vpc: &'a Named<VpcSection>,
    /// Where errors go.
    pub errors: &'a mut Diagnostics,
}

impl Scope<'_> {
    /// The id of something in this VPC.
    pub fn id(&self, kind: Kind, name: &str) -> String {
        resource_id(self.lab, kind, &self.vpc.name, name)
    }

    /// Whether `word` is one of `candidates`; notes an error otherwise.
    pub fn refer(&mut self, what: &str, key: &str, word: &Spanned<Name>, candidates: &[&str]) -> bool {
        let known = candidates.contains(&word.value.0.as_str());
        if !known {
            self.undefined(what, key, &word.value.0, word.span, candidates);
        }
        known
    }

    /// Notes that `name` does not exist.
    pub fn undefined(&mut self, what: &str, key: &str, name: &str, span: Span, candidates: &[&str]) {
        // Its section has another name, which has been said.
        if self.errors.has_slip(key) {
            return;
        }
        let vpc = &self.vpc.name;
        let help = match nearest(name, candidates.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if candidates.is_empty() => format!("define it under `{key}:` of VPC `{vpc}`."),
            None => {
                format!("VPC `{vpc}` has {}; define it under `{key}:`.", quoted(candidates.iter().copied()))
            }
        };
        self.errors.error_once(span, format!("{what} `{name}` is not defined in VPC `{vpc}`")).help(help);
    }
}

/// The place of a span.
pub(super) fn place(span: Span) -> Place {
    Place { line: span.line, column: span.column }
}

/// Whether a CIDR is one that can be used: IPv4, without host bits. `what` is what messages call it.
pub(super) fn check_cidr(errors: &mut Diagnostics, cidr: &Spanned<IpNet>, what: &str) -> bool {
    if let IpNet::V6(_) = cidr.value {
        errors
            .error(cidr.span, format!("{what} is IPv6, which is not supported yet"))
            .help("use an IPv4 CIDR.");
        return false;
    }
    let network = cidr.trunc();
    if network != cidr.value {
        let help = format!("the network is {network}.");
        errors.error(cidr.span, format!("{what} has host bits: an address, not a network")).help(help);
        return false;
    }
    true
}

/// Words that cannot name an instance, because they mean something else where instances are named.
const RESERVED_NAMES: &[(&str, &str)] = &[
    ("internet", "it is the namespace of the lab's internet"),
    ("blackhole", "it is a target of routes"),
    ("local", "it is a target of routes"),
    ("localhost", "it is the name of the own host"),
    ("control", "`localvpc logs control` is the log of the lab's daemon"),
    ("dataplane", "`localvpc logs dataplane` is the log of the lab's dataplane"),
];

impl Lab {
    /// Notes a name of the whole lab.
    pub fn take_name(&mut self, name: &str, span: Span, what: &'static str, errors: &mut Diagnostics) {
        if let Some((_, why)) = RESERVED_NAMES.iter().find(|(word, _)| *word == name) {
            errors.error(span, format!("{what} cannot be called `{name}`")).help(format!("{why}."));
            return;
        }
        if let Some((first, other)) = self.names.get(name) {
            errors
                .error(span, format!("the name `{name}` is taken by {other}"))
                .related(*first, "it is here")
                .help("instances, internet hosts and shared subnets become namespaces: one name each in the whole lab.");
            return;
        }
        self.names.insert(name.to_owned(), (span, what));
    }

    /// Notes an address of the internet side.
    pub fn take_public(&mut self, address: &Spanned<IpAddr>, what: &str, errors: &mut Diagnostics) -> bool {
        let ip = address.value;
        if ip.is_ipv6() {
            errors
                .error(address.span, format!("{ip} is IPv6, which is not supported yet"))
                .help("use an IPv4 address.");
            return false;
        }
        if let Some(kind) = not_public(ip) {
            let message = format!("{what} has {ip}, {kind}: it cannot be on the internet");
            let help = "documentation ranges are made for this: 198.51.100.0/24 and 203.0.113.0/24.";
            errors.error(address.span, message).help(help);
            return false;
        }
        if let Err(owner) = self.public.claim(ip, what, address.span) {
            let error = errors.error(address.span, format!("{ip} is taken by {}", owner.what));
            error.help(format!("give {what} an address of its own."));
            if let Some(span) = owner.span {
                error.related(span, "it is used here");
            }
            return false;
        }
        true
    }
}

fn internet_hosts(content: &LabSection, lab: &mut Lab, errors: &mut Diagnostics) -> Vec<InternetHost> {
    let Some(internet) = &content.internet else { return Vec::new() };
    let mut hosts = Vec::new();
    for named in internet.hosts.iter() {
        lab.take_name(&named.name, named.span, "an internet host", errors);
        lab.take_public(&named.value.ip, &format!("internet host `{}`", named.name), errors);
        hosts.push(InternetHost {
            name: named.name.clone(),
            place: Some(place(named.span)),
            ip: *named.value.ip,
            commands: texts(&named.value.run),
        });
    }
    hosts
}

/// Warns about hosts whose address is local to a VPC: nothing in it can reach them (VPC-5).
fn warn_about_hidden_hosts(content: &LabSection, vpcs: &[Vpc], errors: &mut Diagnostics) {
    for named in content.internet.iter().flat_map(|internet| internet.hosts.iter()) {
        let ip = &named.value.ip;
        let Some(vpc) = vpcs.iter().find(|vpc| vpc.cidrs.iter().any(|cidr| cidr.contains(&ip.value))) else {
            continue;
        };
        let message = format!(
            "instances of VPC `{}` cannot reach internet host `{}`: {} is local there",
            vpc.name, named.name, ip.value
        );
        errors
            .warning(ip.span, message)
            .id("internet-host-hidden")
            .help("give the host an address outside the CIDRs of all VPCs.");
    }
}

/// A lab with an internet gateway has something on the other side of it.
fn implicit_host(vpcs: &[Vpc], hosts: &mut Vec<InternetHost>, lab: &mut Lab) {
    if !hosts.is_empty() || vpcs.iter().all(|vpc| vpc.internet_gateway.is_none()) {
        return;
    }
    let range = (IpAddr::from([198, 51, 100, 1]), IpAddr::from([198, 51, 100, 254]));
    if let Some(ip) = lab.public.automatic(range, "internet", "the internet") {
        hosts.push(InternetHost { name: "internet".into(), place: None, ip, commands: Vec::new() });
    }
}

/// Refuses to attach to namespaces that the lab makes itself.
fn own_namespaces(content: &LabSection, lab: &Lab, errors: &mut Diagnostics) {
    let mut own: Vec<&str> = vec!["internet"];
    for vpc in content.vpcs.iter() {
        let is_shared =
            |subnet: &SubnetSection| subnet.namespace.is_some_and(|mode| mode.value == NamespaceMode::Shared);
        let shared = vpc.value.subnets.iter().filter(|subnet| is_shared(&subnet.value));
        own.extend(shared.map(|subnet| subnet.name.as_str()));
        let instances = vpc.value.instances.iter().filter(|instance| instance.value.attach.is_none());
        own.extend(instances.map(|instance| instance.name.as_str()));
    }
    for (path, (span, instance)) in &lab.attached {
        let is_own =
            |name: &&str| *path == std::path::Path::new("/run/netns").join(format!("{}-{name}", lab.name));
        if let Some(name) = own.iter().copied().find(|name| is_own(name)) {
            let message =
                format!("instance `{instance}` attaches to the namespace that this lab makes for `{name}`");
            errors
                .error(*span, message)
                .help("attach to one that exists without the lab; instances share one by `namespace: shared` on their subnet.");
        }
    }
}

/// Gives a public address of the pool to every instance that asked for one.
fn public_addresses(content: &LabSection, vpcs: &mut [Vpc], lab: &mut Lab, errors: &mut Diagnostics) {
    let written = content.internet.as_ref().and_then(|internet| internet.public_pool);
    let pool = written.map_or_else(default_pool, |pool| pool.value);
    if let Some(pool) = &written {
        let usable = check_cidr(errors, pool, &format!("public pool {}", pool.value));
        if let Some(kind) = not_public(pool.network()).filter(|_| usable) {
            let message = format!("public pool {} starts with {kind}", pool.value);
            errors.error(pool.span, message).help("203.0.113.128/25 is the default.");
        }
    }
    for (name, span) in std::mem::take(&mut lab.automatic) {
        let Some(ip) = lab.public.automatic(pool_range(pool), &name, &format!("instance `{name}`")) else {
            let message = format!("the public pool {pool} has no address left for instance `{name}`");
            errors.error(span, message).help("set a larger `public_pool:` under `internet:`.");
            continue;
        };
        let mut instances = vpcs.iter_mut().flat_map(|vpc| &mut vpc.instances);
        if let Some(instance) = instances.find(|instance| instance.name == name) {
            instance.public = Some(PublicAddress { ip, kind: PublicAddressKind::Automatic });
        }
    }
}

fn default_pool() -> IpNet {
    ipnet::Ipv4Net::new_assert([203, 0, 113, 128].into(), 25).into()
}

/// The texts of a list.
pub(super) fn texts(words: &OneOrMany<Spanned<Text>>) -> Vec<String> {
    words.iter().map(|text| text.value.0.clone()).collect()
}
