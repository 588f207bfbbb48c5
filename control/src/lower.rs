//! From the model to rows for the dataplane and a plan for the host.
