//! Who reaches whom: one question for every pair of ends.
