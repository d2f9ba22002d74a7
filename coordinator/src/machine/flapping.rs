//! Workers that come and go too often.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::CoordinatorSettings;

/// Losses of late, and who must stay away, by the workers' names and hosts.
#[derive(Debug, Default)]
pub(super) struct Flaps {
    losses: BTreeMap<String, Vec<Duration>>,
    away_until: BTreeMap<String, Duration>,
}

impl Flaps {
    /// Takes note of a loss; whether the worker must stay away for a while.
    pub(super) fn lost(&mut self, now: Duration, name: &str, settings: &CoordinatorSettings) -> bool {
        if settings.flap_limit == 0 {
            return false;
        }
        // Both maps hold what happened within a window or a cool-down only.
        self.away_until.retain(|_, until| *until > now);
        self.losses.retain(|_, losses| {
            losses.retain(|then| now.saturating_sub(*then) <= settings.flap_window());
            !losses.is_empty()
        });
        let losses = self.losses.entry(name.to_owned()).or_default();
        losses.push(now);
        if losses.len() < settings.flap_limit as usize {
            return false;
        }
        self.losses.remove(name);
        self.away_until.insert(name.to_owned(), now + settings.cooldown());
        true
    }

    /// How long a worker must still stay away.
    pub(super) fn away_for(&self, now: Duration, name: &str) -> Option<Duration> {
        let left = self.away_until.get(name)?.saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_losses_within_the_window_count() {
        let settings = CoordinatorSettings::default();
        let at = Duration::from_secs;
        let mut flaps = Flaps::default();
        assert!(!flaps.lost(at(0), "a", &settings));
        assert!(!flaps.lost(at(1), "b", &settings));
        assert!(!flaps.lost(at(50), "a", &settings));
        assert!(!flaps.lost(at(61), "a", &settings), "the first is too long ago");
        assert!(flaps.lost(at(70), "a", &settings));
        assert_eq!(flaps.away_for(at(71), "a"), Some(at(29)));
        assert_eq!((flaps.away_for(at(100), "a"), flaps.away_for(at(71), "b")), (None, None));
        assert!(!flaps.lost(at(101), "a", &settings), "the count begins anew");
    }
}
