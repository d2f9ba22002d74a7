//! The page of tasks that are handed out or done here, a curation's or an evaluation's, and the same for
//! programs.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use blip2_dataset::corpus::ingest::Share;
use blip2_pages::run_page::{RunReport, Table, Tile, render_run};
use blip2_proto::v1::LeaseStatusReply;
use blip2_telemetry::Telemetry;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::figures::{count, duration};
use crate::gone::gone;
use crate::left_out::LeftOut;
use crate::row_looks::{LeftOutRows, look_at_left_out};

/// Time over which the speed is measured.
const WINDOW: Duration = Duration::from_secs(600);
/// Changes that are remembered at most.
const MOST_CHANGES: usize = 256;

/// What is told beside the tasks, and the rows that could not be used.
pub(crate) trait WorkDetails: LeftOutRows {
    /// Sections of the page.
    fn tables(&self) -> Vec<Table>;
    /// Further fields for programs.
    fn json(&self) -> Map<String, Value>;
    /// Shows further numbers among the metrics.
    fn show(&self, telemetry: &Telemetry);
}

/// What is shown of tasks; clones are the same.
#[derive(Clone)]
pub(crate) struct WorkPage {
    /// `curation`.
    called: &'static str,
    /// The tasks are those of a share, which this process does by itself.
    share: Option<Share>,
    status: watch::Receiver<LeaseStatusReply>,
    details: Option<Arc<dyn WorkDetails>>,
    left_out: LeftOut,
    recent: Arc<Mutex<VecDeque<Moment>>>,
}

#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Instant,
    done: u64,
    rows: u64,
}

/// Tasks and rows a second, as far as any were done.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Speed {
    tasks_per_s: f64,
    rows_per_s: f64,
}

impl WorkPage {
    /// Shows what this says, and `details`.
    pub(crate) fn new(
        called: &'static str,
        status: watch::Receiver<LeaseStatusReply>,
        details: Option<Arc<dyn WorkDetails>>,
    ) -> Self {
        let (left_out, recent) = (LeftOut::default(), Arc::default());
        Self { called, share: None, status, details, left_out, recent }
    }

    /// The same, of the tasks of a share.
    pub(crate) fn of_share(self, share: Share) -> Self {
        Self { share: Some(share), ..self }
    }

    /// Takes note of what is done and when, and looks at the rows that are shown, until the sender of the
    /// status is gone.
    pub(crate) async fn follow(self) {
        match &self.details {
            None => self.note_all().await,
            Some(details) => {
                let looked =
                    look_at_left_out(self.left_out.clone(), details.as_ref(), gone(self.status.clone()));
                tokio::join!(self.note_all(), looked);
            }
        }
    }

    async fn note_all(&self) {
        let mut status = self.status.clone();
        loop {
            let LeaseStatusReply { tasks, done, rows, .. } = status.borrow_and_update().clone();
            // Before there are tasks, it is not known how many were done before.
            if tasks > 0 {
                self.note(Moment { at: Instant::now(), done, rows });
            }
            if status.changed().await.is_err() {
                return;
            }
        }
    }

    /// Leases that come and go are no news.
    fn note(&self, moment: Moment) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.back().is_some_and(|last| last.done == moment.done) {
            return;
        }
        let is_old = |first: &Moment| moment.at.saturating_duration_since(first.at) > WINDOW;
        while recent.len() >= MOST_CHANGES || recent.len() > 1 && recent.front().is_some_and(is_old) {
            recent.pop_front();
        }
        recent.push_back(moment);
    }

    fn speed(&self) -> Option<Speed> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (recent.front()?, recent.back()?);
        let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
        let per_s = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
        (seconds > 0.0).then(|| Speed {
            tasks_per_s: per_s(first.done, last.done),
            rows_per_s: per_s(first.rows, last.rows),
        })
    }

    /// Seconds to the end as it goes now.
    fn seconds_left(&self, status: &LeaseStatusReply) -> Option<f64> {
        let speed = self.speed()?.tasks_per_s;
        (speed > 0.0).then(|| status.tasks.saturating_sub(status.done) as f64 / speed)
    }

    /// The page.
    pub(crate) fn html(&self) -> String {
        let status = self.status.borrow().clone();
        let LeaseStatusReply { tasks, done, .. } = status;
        let workers = Table {
            id: "workers",
            title: "Workers".into(),
            about: "Those that have a task.".into(),
            rows: status.workers.iter().map(|name| (name.clone(), "has a task".into())).collect(),
            empty: "No worker has a task.".into(),
        };
        let details = self.details.iter().flat_map(|details| details.tables());
        render_run(&RunReport {
            title: capital(self.called),
            state: format!(
                "{done} of {} done. {}The page is read anew every ten seconds.",
                count(tasks as usize, "task"),
                self.share.map_or_else(String::new, in_words)
            ),
            tiles: self.tiles(&status),
            charts: Vec::new(),
            about_charts: String::new(),
            tables: std::iter::once(workers).chain(details).collect(),
            pictures: self.left_out.section(),
        })
    }

    fn tiles(&self, status: &LeaseStatusReply) -> Vec<Tile> {
        let tile = |label: &str, value: String, note: String| Tile { label: label.into(), value, note };
        let LeaseStatusReply { tasks, done, leased, rows, .. } = *status;
        let open = tasks.saturating_sub(done + leased);
        let (left, note) = match self.seconds_left(status) {
            Some(seconds) => (duration(seconds), "as it goes now"),
            None => ("unknown".into(), "until tasks are done here"),
        };
        let speed = self.speed().map_or("unknown".into(), |speed| format!("{:.1}", speed.rows_per_s));
        vec![
            tile("Tasks done", done.to_string(), format!("of {tasks}")),
            tile("Tasks leased", leased.to_string(), format!("to {}", count(status.workers.len(), "worker"))),
            tile("Tasks left", open.to_string(), "that nobody has".into()),
            tile("Rows a second", speed, format!("{rows} rows since this process began")),
            tile("Time left", left, note.into()),
        ]
    }

    /// The same for programs.
    pub(crate) fn json(&self) -> String {
        let status = self.status.borrow().clone();
        let LeaseStatusReply { tasks, done, leased, rows, workers } = &status;
        let speed = self.speed();
        let mut told = json!({
            "work": self.called,
            "tasks": tasks,
            "done": done,
            "leased": leased,
            "left": tasks.saturating_sub(done + leased),
            "rows": rows,
            "rows_per_s": speed.map(|speed| speed.rows_per_s),
            "eta_seconds": self.seconds_left(&status),
            "workers": workers,
        });
        if let Some(told) = told.as_object_mut() {
            told.extend(self.share.map(|Share { index, count }| {
                ("share".to_owned(), json!({ "index": index, "count": count }))
            }));
            told.extend(self.details.iter().flat_map(|details| details.json()));
        }
        told.to_string()
    }
}

fn in_words(Share { index, count }: Share) -> String {
    format!("These are the tasks of share {index}/{count} alone; other processes do the others. ")
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use blip2_dataset::quarantine::QuarantineRecord;
    use bytes::Bytes;

    use super::*;
    use crate::left_out::tests::record;

    struct Reasons;

    #[tonic::async_trait]
    impl LeftOutRows for Reasons {
        fn newest(&self) -> Vec<QuarantineRecord> {
            vec![record(1)]
        }

        async fn look(&self, _record: &QuarantineRecord) -> Result<Bytes, String> {
            Ok(Bytes::from_static(&[0xff, 0xd8, 0xff]))
        }
    }

    impl WorkDetails for Reasons {
        fn tables(&self) -> Vec<Table> {
            let rows = vec![("it has no <picture>".into(), "3".into())];
            vec![Table {
                id: "rejected",
                title: "Rejected".into(),
                about: String::new(),
                rows,
                empty: String::new(),
            }]
        }

        fn json(&self) -> Map<String, Value> {
            Map::from_iter([("rejected".to_owned(), json!({ "it has no picture": 3 }))])
        }

        fn show(&self, _telemetry: &Telemetry) {}
    }

    fn page(status: LeaseStatusReply) -> WorkPage {
        WorkPage::new("curation", watch::channel(status).1, Some(Arc::new(Reasons)))
    }

    fn status(done: u64) -> LeaseStatusReply {
        LeaseStatusReply {
            tasks: 12,
            done,
            leased: 2,
            workers: vec!["<one>".into(), "two".into()],
            rows: 80 * done,
        }
    }

    #[test]
    fn the_page_says_what_is_done_leased_and_left_how_fast_and_why_rows_are_left_out() {
        let shown = page(status(4));
        assert!(shown.html().contains("unknown"), "before anything was done here");
        let now = Instant::now();
        for (done, seconds) in [(2, 0), (3, 10), (3, 11), (4, 20)] {
            shown.note(Moment { at: now + Duration::from_secs(seconds), done, rows: 80 * done });
        }
        let html = shown.html();
        for part in [
            "<h1>Curation</h1>",
            "4 of 12 tasks done",
            "to 2 workers",
            "<strong>6</strong>",
            "<strong>8.0</strong>",
            "1 min 20 s",
            "&lt;one&gt;",
            "it has no &lt;picture&gt;",
        ] {
            assert!(html.contains(part), "{part}\n{html}");
        }
        assert!(!html.contains("<one>") && !html.contains("Curves"));
        let json: Value = serde_json::from_str(&shown.json()).unwrap();
        assert_eq!(
            (&json["done"], &json["left"], &json["eta_seconds"]),
            (&4.into(), &6.into(), &80.0.into())
        );
        assert_eq!((&json["rows_per_s"], &json["rejected"]["it has no picture"]), (&8.0.into(), &3.into()));
    }

    #[test]
    fn the_page_of_a_share_says_which_and_so_do_programs_learn() {
        let shown = page(status(4)).of_share(Share { index: 2, count: 8 });
        assert!(shown.html().contains("tasks of share 2/8 alone"), "{}", shown.html());
        let json: Value = serde_json::from_str(&shown.json()).unwrap();
        assert_eq!(json["share"], json!({ "index": 2, "count": 8 }));
        let led: Value = serde_json::from_str(&page(status(4)).json()).unwrap();
        assert!(led.get("share").is_none() && !page(status(4)).html().contains("share"));
    }

    #[tokio::test]
    async fn rows_are_shown_with_pictures_that_are_read_while_somebody_looks() {
        let (sender, status) = watch::channel(status(4));
        let shown = WorkPage::new("curation", status, Some(Arc::new(Reasons)));
        let play = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            assert_eq!(shown.left_out.unseen(), Some(record(1)), "nobody looks");
            assert!(shown.html().contains("its picture is being read"));
            let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
            while shown.left_out.unseen().is_some() && tokio::time::Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            let html = shown.html();
            assert!(html.contains("src=\"data:image/jpeg;base64,/9j/\"") && html.contains("key-1"), "{html}");
            drop(sender);
        };
        tokio::join!(shown.clone().follow(), play);
    }

    #[tokio::test]
    async fn tasks_that_were_done_before_have_no_speed() {
        let (sender, status) = watch::channel(LeaseStatusReply::default());
        let shown = WorkPage::new("curation", status, None);
        let following = shown.clone().follow();
        let play = async {
            tokio::task::yield_now().await;
            sender.send_replace(LeaseStatusReply { rows: 0, ..self::status(9) });
            tokio::task::yield_now().await;
            assert_eq!(shown.recent.lock().unwrap().len(), 1);
            assert_eq!(shown.speed(), None);
            drop(sender);
        };
        tokio::join!(following, play);
    }

    #[test]
    fn the_speed_is_that_of_the_last_minutes_and_what_is_remembered_is_bounded() {
        let shown = page(status(4));
        let now = Instant::now();
        for done in 0..2000_u64 {
            // Fast at first, then one task in ten seconds.
            let seconds = if done < 1000 { done / 10 } else { 100 + 10 * (done - 1000) };
            shown.note(Moment { at: now + Duration::from_secs(seconds), done, rows: done });
        }
        assert!(shown.recent.lock().unwrap().len() <= MOST_CHANGES);
        let speed = shown.speed().unwrap();
        assert!((speed.tasks_per_s - 0.1).abs() < 0.01, "{speed:?}");
    }
}
