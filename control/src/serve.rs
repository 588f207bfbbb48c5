//! The web server that answers with what it saw.
