//! The document as it was written, with the position of every value.
