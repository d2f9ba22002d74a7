//! The state that a step leads to.

use blip2_tensors::train::optimizer::Moments;
use blip2_tensors::train::placed::PlacedTensors;

/// Parameters and moments in buffers, of a state to be or of one that was.
#[derive(Debug, Clone)]
pub(crate) struct NextBuffers {
    pub(crate) parameters: Vec<f32>,
    pub(crate) moments: Moments,
}

impl Default for NextBuffers {
    fn default() -> Self {
        Self { parameters: Vec::new(), moments: Moments::zeros(0) }
    }
}

/// What a step makes of a state, computed before the step is committed.
#[derive(Debug)]
pub(crate) struct NextState {
    /// In the state's layout.
    pub(crate) buffers: NextBuffers,
    /// The parameters on the device.
    pub(crate) placed: PlacedTensors,
}
