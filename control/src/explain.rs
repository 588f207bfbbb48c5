//! From the steps of a trace to an explanation with names, rules and lines of the file.
