//! A check: its name, what it asks, and what to do; and what was found.

use serde::Serialize;

/// A check, declared once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// In the list.
    pub name: &'static str,
    /// What it asks.
    pub asks: &'static str,
    /// What to do where the answer is bad.
    pub remedy: &'static str,
}

/// How an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As a run needs it.
    Green,
    /// It cannot be told, or will do.
    Yellow,
    /// A run would fail.
    Red,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's.
    pub name: &'static str,
    /// The check's.
    pub asks: &'static str,
    /// How the answer is.
    pub state: State,
    /// In words.
    pub found: String,
    /// Where it is not green.
    pub remedy: Option<&'static str>,
}

impl Check {
    /// As it should be.
    pub fn green(&self, found: impl Into<String>) -> Finding {
        self.finding(State::Green, found.into())
    }

    /// Not known, or just enough.
    pub fn yellow(&self, found: impl Into<String>) -> Finding {
        self.finding(State::Yellow, found.into())
    }

    /// As no run can use it.
    pub fn red(&self, found: impl Into<String>) -> Finding {
        self.finding(State::Red, found.into())
    }

    fn finding(&self, state: State, found: String) -> Finding {
        let found = blip2_store::secret_url::redacted_text(&found);
        let remedy = (state != State::Green).then_some(self.remedy);
        Finding { name: self.name, asks: self.asks, state, found, remedy }
    }
}

impl Finding {
    /// A line, and one more where there is something to do.
    pub fn shown(&self) -> String {
        let state = match self.state {
            State::Green => "green",
            State::Yellow => "yellow",
            State::Red => "red",
        };
        let remedy = self.remedy.map_or(String::new(), |remedy| format!("        remedy: {remedy}\n"));
        format!("{state:<7} {:<18} {}\n{remedy}", self.name, self.found)
    }
}
