//! One binary for all behaviours: a file a behaviour, each named in the sentence it proves.

mod propagation_properties;
mod propagation_together;
mod propagation_vectors;
mod propagation_w3c_trace_context;
