//! The ends of a path, and under which addresses and names the others know them.

use super::*;

/// One end of a path.
pub(super) enum End<'a> {
    /// An instance, and which of its private addresses is meant: the primary one where it was named.
    Instance(&'a Vpc, &'a Instance, IpAddr),
    NatGateway(&'a Vpc, &'a NatGateway),
    InternetGateway(&'a InternetGateway, Option<&'a InternetHost>),
    /// Any address of the internet; the host that stands for it where one is needed.
    Internet(Option<&'a InternetHost>),
    Host(&'a InternetHost),
    /// An address as it is, and whose it is as far as known.
    Address(IpAddr, Option<String>),
}

impl<'a> End<'a> {
    pub(super) fn source(&self, index: &Index) -> Result<Source, ErrorView> {
        let lost = || error("internal", "the sender has no row".into());
        Ok(match self {
            Self::Instance(_, instance, _) => Source::Eni(index.eni_of(&instance.name).ok_or_else(lost)?),
            Self::NatGateway(_, nat) => {
                Source::NatGateway(index.nat_gateway_by_id(&nat.id).ok_or_else(lost)?)
            }
            Self::InternetGateway(gateway, _) => {
                Source::InternetGateway(index.internet_gateway_by_id(&gateway.id).ok_or_else(lost)?)
            }
            Self::Internet(_) => Source::Internet,
            Self::Host(host) => Source::Host(v4(host.ip)?),
            Self::Address(address, _) => Source::Host(v4(*address)?),
        })
    }

    /// What is to receive, for a sender that knows it by `address`, or by none.
    pub(super) fn destination(
        &self,
        index: &Index,
        word: &str,
        address: Option<IpAddr>,
    ) -> Result<Destination, ErrorView> {
        let lost = || error("internal", "the receiver has no row".into());
        Ok(match self {
            Self::Instance(_, instance, private) => {
                let eni = index.eni_of(&instance.name).ok_or_else(lost)?;
                match address.and_then(|address| instance.private_of(address)).unwrap_or(*private) {
                    primary if primary == instance.ip => Destination::Eni(eni),
                    secondary => Destination::EniAddress(eni, v4(secondary)?),
                }
            }
            Self::NatGateway(_, nat) if nat.state == NatGatewayState::Deleted => {
                let message = format!("NAT gateway `{word}` is deleted: it has no address (BAD_STATE)");
                return Err(error("not_found", message));
            }
            Self::NatGateway(_, nat) => {
                Destination::NatGateway(index.nat_gateway_by_id(&nat.id).ok_or_else(lost)?)
            }
            Self::InternetGateway(gateway, _) => {
                Destination::InternetGateway(index.internet_gateway_by_id(&gateway.id).ok_or_else(lost)?)
            }
            Self::Internet(_) => Destination::Internet,
            Self::Host(host) => Destination::Address(v4(host.ip)?),
            Self::Address(address, _) => Destination::Address(v4(*address)?),
        })
    }

    /// The VPC it is in; none for what is on the internet.
    pub(super) fn vpc(&self) -> Option<&'a Vpc> {
        match self {
            Self::Instance(vpc, ..) | Self::NatGateway(vpc, _) => Some(vpc),
            _ => None,
        }
    }

    /// The link that it is behind; none for what has no namespace.
    pub(super) fn link(&self, index: &Index) -> Option<LinkId> {
        match self {
            Self::Instance(_, instance, _) => index.link_of(index.eni_of(&instance.name)?),
            Self::Host(_) | Self::Internet(_) | Self::InternetGateway(..) => index.internet_link(),
            Self::Address(address, _) => {
                let hosts = &index.model().internet_hosts;
                hosts.iter().any(|host| host.ip == *address).then(|| index.internet_link())?
            }
            Self::NatGateway(..) => None,
        }
    }

    /// The address it sends from; for the internet that of a host which stands for it.
    pub(super) fn sends_as(&self) -> Option<IpAddr> {
        match self {
            Self::Instance(_, _, private) => Some(*private),
            Self::NatGateway(_, nat) => nat.addresses.first().map(|address| address.private),
            Self::InternetGateway(_, host) | Self::Internet(host) => host.map(|host| host.ip),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    /// The address it sends from, where that is not the one of its interface that comes first.
    pub(super) fn secondary(&self) -> Option<Ipv4Addr> {
        match self {
            Self::Instance(_, instance, private) if *private != instance.ip => v4(*private).ok(),
            _ => None,
        }
    }

    /// The instance or host whose namespace sends for it; a host speaks for all of the internet.
    pub(super) fn speaker(&self, index: &Index) -> Option<String> {
        match self {
            Self::Instance(_, instance, _) => Some(instance.name.clone()),
            Self::Host(host) | Self::Internet(Some(host)) | Self::InternetGateway(_, Some(host)) => {
                Some(host.name.clone())
            }
            Self::Address(..) => index.model().internet_hosts.first().map(|host| host.name.clone()),
            Self::NatGateway(..) | Self::Internet(None) | Self::InternetGateway(_, None) => None,
        }
    }

    /// Why there is no namespace that could send for it.
    pub(super) fn nobody(&self, index: &Index) -> Option<String> {
        match self {
            Self::NatGateway(_, nat) => {
                Some(format!("{} is a NAT gateway, which sends nothing by itself", nat.name))
            }
            _ if self.link(index).is_some() && self.speaker(index).is_some() => None,
            Self::Address(address, _) => Some(format!("no host of the lab's internet has {address}")),
            _ => Some("the lab's internet has no host: add one to `internet:`".into()),
        }
    }

    /// The address under which the sender knows it: private inside a VPC, public from elsewhere.
    pub(super) fn address_for(&self, from: &End<'_>) -> Option<IpAddr> {
        let same = |vpc: &Vpc| from.vpc().is_some_and(|own| own.name == vpc.name);
        match self {
            Self::Instance(vpc, _, private) if same(vpc) => Some(*private),
            // By name it is known by the first public address it has.
            Self::Instance(_, instance, private) => instance
                .addresses()
                .filter(|(own, _)| own == private || *private == instance.ip)
                .find_map(|(_, public)| public),
            Self::NatGateway(vpc, nat) if same(vpc) => nat.addresses.first().map(|address| address.private),
            Self::NatGateway(_, nat) => nat.addresses.first().and_then(|address| address.public),
            Self::InternetGateway(_, host) | Self::Internet(host) => host.map(|host| host.ip),
            Self::Host(host) => Some(host.ip),
            Self::Address(address, _) => Some(*address),
        }
    }

    pub(super) fn label(&self, word: &str, address: Option<IpAddr>, port: Option<u16>) -> String {
        let address = match self {
            Self::Internet(_) => return port.map_or("internet".into(), |port| format!("internet:{port}")),
            Self::InternetGateway(..) => {
                return port.map_or_else(|| word.into(), |port| format!("{word}:{port}"));
            }
            _ => address.or(self.sends_as()).map_or_else(String::new, |address| address.to_string()),
        };
        let end = port.map_or_else(|| address.clone(), |port| format!("{address}:{port}"));
        let name = match self {
            Self::Instance(_, instance, _) => Some(instance.name.as_str()),
            Self::NatGateway(_, nat) => Some(nat.name.as_str()),
            Self::Host(host) => Some(host.name.as_str()),
            Self::Address(_, name) => name.as_deref(),
            Self::Internet(_) | Self::InternetGateway(..) => None,
        };
        name.map_or_else(|| end.clone(), |name| format!("{name} {end}"))
    }

    /// What to do about an end that nothing outside its VPC can name (IGW-6).
    pub(super) fn without_public_address(&self) -> Option<Unnamed> {
        let (vpc, name, subnet) = match self {
            Self::Instance(vpc, instance, _) => (vpc, &instance.name, &instance.subnet),
            Self::NatGateway(vpc, nat) => (vpc, &nat.name, &nat.subnet),
            _ => return None,
        };
        let advice = match &vpc.internet_gateway {
            _ if matches!(self, Self::NatGateway(..)) => {
                format!("NAT gateway {name} is private, and no NAT gateway lets anything in.")
            }
            Some(gateway) => format!(
                "To let it in, give {name} an `eip:` and route its subnet {subnet} to {}; \
                 to reach it from inside, go through a bastion.",
                gateway.name
            ),
            None => format!(
                "To let it in, give the VPC an `internet_gateway:`, {name} an `eip:`, and its subnet {subnet} a route there."
            ),
        };
        Some(Unnamed { name: name.clone(), advice })
    }
}

/// The instance or host that has an address, seen from a VPC or the internet.
pub(super) fn receiver(index: &Index, vpc: Option<&Vpc>, address: IpAddr) -> Option<String> {
    let model = index.model();
    let inside = vpc.and_then(|vpc| vpc.instances.iter().find(|instance| instance.has(address)));
    let public = || {
        let mut all = model.instances().map(|(_, instance)| instance);
        all.find(|instance| instance.addresses().any(|(_, public)| public == Some(address)))
    };
    if let Some(instance) = inside.or_else(public) {
        return Some(instance.name.clone());
    }
    model.internet_hosts.iter().find(|host| host.ip == address).map(|host| host.name.clone())
}

/// An end that has no address for the sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// Its name.
    pub name: String,
    /// What would help.
    pub advice: String,
}
