//! Numbers for names, never given twice.

use std::collections::{BTreeMap, BTreeSet};

use localvpc_api::*;
use serde::{Deserialize, Serialize};

use crate::model::{Instance, Model, Namespaces, Vpc};

/// The numbers of a lab's resources. Kept, in memory or as JSON, for as long as the lab lives: the
/// dataplane's connections and leases refer to them across pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRegistry {
    /// The last number given for each kind.
    last: BTreeMap<String, u32>,
    /// `kind name` → number, for everything that exists.
    ids: BTreeMap<String, u32>,
}

/// One pass of naming: what is not named by its end is gone.
pub struct Naming<'a> {
    registry: &'a mut IdRegistry,
    used: BTreeSet<String>,
}

impl IdRegistry {
    pub(super) fn naming(&mut self) -> Naming<'_> {
        Naming { registry: self, used: BTreeSet::new() }
    }
}

impl Naming<'_> {
    pub fn vpc(&mut self, vpc: &Vpc) -> VpcId {
        VpcId(self.id("vpc", &vpc.name))
    }

    pub fn subnet(&mut self, vpc: &Vpc, name: &str) -> SubnetId {
        SubnetId(self.within("subnet", vpc, name))
    }

    pub fn route_table(&mut self, vpc: &Vpc, name: &str) -> RouteTableId {
        RouteTableId(self.within("route-table", vpc, name))
    }

    pub fn network_acl(&mut self, vpc: &Vpc, name: &str) -> NetworkAclId {
        NetworkAclId(self.within("network-acl", vpc, name))
    }

    pub fn security_group(&mut self, vpc: &Vpc, name: &str) -> SecurityGroupId {
        SecurityGroupId(self.within("security-group", vpc, name))
    }

    pub fn eni(&mut self, vpc: &Vpc, instance: &str) -> EniId {
        EniId(self.within("eni", vpc, instance))
    }

    pub fn internet_gateway(&mut self, vpc: &Vpc, name: &str) -> InternetGatewayId {
        InternetGatewayId(self.within("internet-gateway", vpc, name))
    }

    pub fn nat_gateway(&mut self, vpc: &Vpc, name: &str) -> NatGatewayId {
        NatGatewayId(self.within("nat-gateway", vpc, name))
    }

    /// The link of an instance: its own, or the one of its shared subnet. An instance that moves from
    /// one namespace to another gets a new link.
    pub fn link(&mut self, vpc: &Vpc, instance: &Instance) -> LinkId {
        match (&instance.attach, vpc.subnet(&instance.subnet).map(|subnet| subnet.namespaces)) {
            (Some(path), _) => LinkId(self.id("link", &format!("{}@{}", instance.name, path.display()))),
            (None, Some(Namespaces::Shared)) => LinkId(self.id("link", &instance.subnet)),
            (None, _) => LinkId(self.id("link", &instance.name)),
        }
    }

    /// The link of the internet, in a lab that has one.
    pub fn internet_link(&mut self, model: &Model) -> Option<LinkId> {
        model.has_internet().then(|| LinkId(self.id("link", "internet")))
    }

    /// Forgets what was not named.
    pub fn finish(self) {
        let Self { registry, used } = self;
        registry.ids.retain(|key, _| used.contains(key));
    }

    fn within(&mut self, kind: &str, vpc: &Vpc, name: &str) -> u32 {
        self.id(kind, &format!("{}/{name}", vpc.name))
    }

    fn id(&mut self, kind: &str, name: &str) -> u32 {
        let key = format!("{kind} {name}");
        let IdRegistry { last, ids } = &mut *self.registry;
        let id = *ids.entry(key.clone()).or_insert_with(|| {
            let last = last.entry(kind.to_owned()).or_default();
            *last += 1;
            *last
        });
        self.used.insert(key);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_kept_and_never_given_twice() {
        let mut registry = IdRegistry::default();
        let mut pass = |names: &[&str]| -> Vec<u32> {
            let mut naming = registry.naming();
            let ids = names.iter().map(|name| naming.id("eni", name)).collect();
            naming.finish();
            ids
        };
        assert_eq!(pass(&["a", "b"]), [1, 2]);
        assert_eq!(pass(&["b"]), [2]);
        assert_eq!(pass(&["a", "b"]), [3, 2], "a came back as another resource");
    }

    #[test]
    fn it_survives_as_json() {
        let mut registry = IdRegistry::default();
        let mut naming = registry.naming();
        naming.id("eni", "main/web");
        naming.finish();
        let json = serde_json::to_string(&registry).unwrap();
        assert_eq!(serde_json::from_str::<IdRegistry>(&json).unwrap(), registry);
    }
}
