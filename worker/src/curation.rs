//! The models of CapFilt: what writes captions about pictures, and what scores texts about them.

mod settings;

pub use settings::CurationModelSettings;
