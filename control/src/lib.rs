//! localvpc's control side: from a file to namespaces, devices and tables.
//!
//! Data flows one way: [`config`] (what was written, with spans) → [`model`] (typed
//! resources) → [`lower`] (rows for the dataplane, a plan for the host) → [`daemon`],
//! which applies both through [`host`]. [`view`] is what the outside sees of a lab: the
//! JSON of the HTTP API and of `-o json`. [`cli`] holds one file per verb. [`mod@bench`] is what a lab is measured beside.

pub mod analysis;
pub mod bench;
pub mod check;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod explain;
pub mod graph;
pub mod host;
pub mod lint;
pub mod lower;
pub mod model;
pub mod probe;
pub mod serve;
pub mod view;
