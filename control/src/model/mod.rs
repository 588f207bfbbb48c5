//! Typed resources: what a document means.
