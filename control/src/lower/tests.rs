//! What a model is lowered to.
