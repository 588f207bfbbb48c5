//! The daemon of one lab: applies a model, keeps it running, answers the HTTP API.
