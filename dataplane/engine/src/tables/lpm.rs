//! Finds the longest prefix that contains an address.

use std::net::IpAddr;

use ipnet::IpNet;

/// A set of prefixes with a value each.
#[derive(Debug)]
pub struct Lpm<T>(Vec<(IpNet, T)>);

impl<T> Default for Lpm<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Lpm<T> {
    /// Builds the set; prefixes are distinct.
    pub fn build(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        Self(prefixes.into_iter().collect())
    }

    /// The value of the longest prefix that contains `address`.
    #[inline]
    pub fn lookup(&self, address: IpAddr) -> Option<T> {
        self.0
            .iter()
            .filter(|(net, _)| net.contains(&address))
            .max_by_key(|(net, _)| net.prefix_len())
            .map(|(_, value)| *value)
    }
}
