//! Files and what is said about them.
