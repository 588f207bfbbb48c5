//! Opens a namespace that somebody else made, to put a device into it.

use std::io;
use std::path::Path;

use super::netns::{Identity, Namespace};
use super::plan::{HostPlan, NamespaceOrigin};
use super::{Error, of};

/// Checks every namespace that a plan attaches, before anything is touched: it is there, it is neither the machine's own
/// nor one of those that the lab made (`own`, by name), and no other instance attaches it under another path.
///
/// # Errors
///
/// [`Error::Namespace`] with the [`Error::Attach`] of the first that cannot be attached.
pub fn check(plan: &HostPlan, own: &[(String, Identity)]) -> Result<(), Error> {
    let mut seen: Vec<(&str, Identity)> =
        own.iter().map(|(name, identity)| (name.as_str(), *identity)).collect();
    for namespace in &plan.namespaces {
        let NamespaceOrigin::Attach { path } = &namespace.origin else { continue };
        let identity = open(path).and_then(|it| it.identity()).map_err(of(&namespace.name))?;
        if let Some((other, _)) = seen.iter().find(|(_, other)| *other == identity) {
            let reason = if own.iter().any(|(_, own)| *own == identity) {
                format!("it is the namespace that this lab made for {other}")
            } else {
                format!("it is the same namespace that {other} attaches: one instance per namespace")
            };
            return Err(of(&namespace.name)(Error::Attach { path: path.clone(), reason }));
        }
        seen.push((&namespace.name, identity));
    }
    Ok(())
}

/// Opens the namespace at `/run/netns/<name>` or `/proc/<pid>/ns/net`.
///
/// # Errors
///
/// [`Error::Attach`] when there is none, or when it is the machine's own: a lab must never reach that.
pub fn open(path: &Path) -> Result<Namespace, Error> {
    let refuse = |reason: &str| Error::Attach { path: path.to_owned(), reason: reason.to_owned() };
    let namespace = Namespace::open(path).map_err(|error| match error {
        Error::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => refuse(
            "there is no such namespace: start what makes it first, or correct `attach:` (`ip netns list` shows names)",
        ),
        Error::Io { source, .. } => refuse(&source.to_string()),
        other => other,
    })?;
    let identity = namespace.identity()?;
    let forbidden = ["/proc/1/ns/net", "/proc/self/ns/net"];
    if forbidden.iter().any(|own| Identity::at(Path::new(own)) == Some(identity)) {
        return Err(refuse(
            "it is the machine's own network namespace, whose routes a lab must not change: attach a container's or one made with `ip netns add`",
        ));
    }
    Ok(namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_namespace_and_what_is_none_are_refused() {
        for path in ["/proc/1/ns/net", "/proc/self/ns/net", "/run/netns/none-such-localvpc", "/etc/hosts"] {
            // Without privileges /proc/1 cannot even be looked at: refused as well.
            assert!(matches!(open(Path::new(path)), Err(Error::Attach { .. })), "{path}");
        }
    }
}
