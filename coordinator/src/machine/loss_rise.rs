//! Notices when the loss rises.

use std::collections::VecDeque;

use crate::LossRise;

/// The losses of the newest steps of a stage. A pure function of the committed losses since this coordinator
/// began.
#[derive(Debug, Default)]
pub(super) struct LossWatch {
    stage: u32,
    /// The step expected next.
    next: u64,
    recent: VecDeque<f64>,
    /// The smallest mean over a whole window.
    smallest: Option<f64>,
    /// The newest mean was too large.
    is_high: bool,
}

/// A rise that has just begun.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rise {
    /// Mean loss over the newest steps, and the smallest such mean before.
    pub(super) mean: f64,
    pub(super) smallest: f64,
}

impl LossWatch {
    /// Takes in the loss of a committed step.
    pub(super) fn push(&mut self, settings: LossRise, stage: u32, step: u64, loss: f64) -> Option<Rise> {
        let window = settings.window as usize;
        if window == 0 || !loss.is_finite() {
            return None;
        }
        // A run that is set back does steps again; those of a stage have nothing in common with another's.
        if stage != self.stage || step < self.next {
            *self = Self { stage, ..Self::default() };
        }
        self.next = step + 1;
        if self.recent.len() == window {
            self.recent.pop_front();
        }
        self.recent.push_back(loss);
        if self.recent.len() < window {
            return None;
        }
        let mean = self.recent.iter().sum::<f64>() / window as f64;
        let smallest = self.smallest.map_or(mean, |smallest| smallest.min(mean));
        self.smallest = Some(smallest);
        let is_high = mean > settings.factor * smallest && smallest > 0.0;
        let was_high = std::mem::replace(&mut self.is_high, is_high);
        (is_high && !was_high).then_some(Rise { mean, smallest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rises(losses: &[f64], window: u32) -> Vec<u64> {
        let mut watch = LossWatch::default();
        let settings = LossRise { window, factor: 2.0 };
        let steps = (0..).zip(losses);
        steps
            .filter(|(step, loss)| watch.push(settings, 1, *step, **loss).is_some())
            .map(|(step, _)| step)
            .collect()
    }

    #[test]
    fn a_rise_is_told_once_until_it_is_over() {
        let losses = [4.0, 3.0, 1.0, 1.0, 1.0, 5.0, 6.0, 7.0, 1.0, 1.0, 9.0, 9.0];
        assert_eq!(rises(&losses, 2), [5, 10]);
        assert_eq!(rises(&losses, 12), [] as [u64; 0]);
        assert_eq!(rises(&losses, 0), [] as [u64; 0]);
        assert_eq!(rises(&[1.0, 1.9, 2.0], 1), [] as [u64; 0]);
        assert_eq!(rises(&[1.0, f64::NAN, 2.1], 1), [2]);
    }

    #[test]
    fn a_stage_and_a_step_back_begin_anew() {
        let settings = LossRise { window: 1, factor: 2.0 };
        let mut watch = LossWatch::default();
        assert_eq!(watch.push(settings, 1, 0, 1.0), None);
        assert_eq!(watch.push(settings, 2, 1, 9.0), None);
        assert_eq!(watch.push(settings, 2, 1, 30.0), None);
        assert_eq!(watch.push(settings, 2, 2, 90.0), Some(Rise { mean: 90.0, smallest: 30.0 }));
    }
}
