//! AWS-style ids, derived from names so that applying a file twice changes nothing (API-50).

/// A kind of resource with its AWS id prefix (API-50).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `vpc-`
    Vpc,
    /// `subnet-`
    Subnet,
    /// `rtb-`
    RouteTable,
    /// `igw-`
    InternetGateway,
    /// `nat-`
    NatGateway,
    /// `eipalloc-`
    ElasticIp,
    /// `eni-`
    NetworkInterface,
    /// `sg-`
    SecurityGroup,
    /// `acl-`
    NetworkAcl,
    /// `i-`
    Instance,
}

impl Kind {
    /// The prefix without its dash.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Vpc => "vpc",
            Self::Subnet => "subnet",
            Self::RouteTable => "rtb",
            Self::InternetGateway => "igw",
            Self::NatGateway => "nat",
            Self::ElasticIp => "eipalloc",
            Self::NetworkInterface => "eni",
            Self::SecurityGroup => "sg",
            Self::NetworkAcl => "acl",
            Self::Instance => "i",
        }
    }
}

/// The id of `name` of a lab; for what lives in a VPC, `vpc` is that VPC's name.
pub fn resource_id(lab: &str, kind: Kind, vpc: &str, name: &str) -> String {
    let parts = [lab, kind.prefix(), vpc, name];
    let (high, low) = (stable_hash(&parts, 1), stable_hash(&parts, 2));
    format!("{}-{high:016x}{:x}", kind.prefix(), low & 0xf)
}

/// A hash that is the same on every machine and in every release: FNV-1a with a finaliser (MurmurHash3's fmix64).
pub fn stable_hash(parts: &[&str], seed: u64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for part in parts {
        // 0xff never occurs in UTF-8, so ("ab", "c") and ("a", "bc") differ.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_aws_and_never_change() {
        let id = resource_id("two-tier", Kind::Vpc, "", "main");
        assert_eq!(id, resource_id("two-tier", Kind::Vpc, "", "main"));
        let (prefix, digits) = id.split_once('-').unwrap();
        assert_eq!(prefix, "vpc");
        assert_eq!(digits.len(), 17);
        assert!(digits.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase()));
        assert_ne!(id, resource_id("other", Kind::Vpc, "", "main"));
        assert_ne!(resource_id("l", Kind::Subnet, "ab", "c"), resource_id("l", Kind::Subnet, "a", "bc"),);
        // Pinned: a change of the hash would rename everything and move every automatic address.
        assert_eq!(stable_hash(&["web"], 0), 8_256_512_277_814_890_403);
    }
}
