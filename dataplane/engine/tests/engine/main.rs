//! The engine as a whole: labs in memory, a virtual clock, two workers that take turns (`testing::fabric`).
//!
//! One program, so that all of this is linked once.

mod allowance;
mod cache;
mod facts_gateways;
mod facts_nat_behaviour;
mod facts_rfc;
mod facts_routing;
mod facts_security;
mod fragments;
mod golden;
mod icmp_errors;
mod mtu;
mod nat_gateway;
mod nat_gateways;
mod nat_metrics;
mod properties;
mod security_groups;
mod tcp;
mod tracking;
mod walks;
