//! What a curation's tasks have come to, on its page and in its metrics.

use blip2_curation::counted::Counted;
use blip2_curation::finish::{CurationSummary, TextCounts};
use blip2_curation::job::CurationJob;
use blip2_dataset::quarantine::QuarantineRecord;
use blip2_pages::run_page::Table;
use blip2_telemetry::Telemetry;
use blip2_telemetry::metric::{CURATED_ROWS_TOTAL, CURATED_TEXTS_TOTAL};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::row_looks::LeftOutRows;
use crate::work_page::WorkDetails;

/// The counts of a job.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) counted: Counted,
    pub(super) job: CurationJob,
}

#[tonic::async_trait]
impl LeftOutRows for Counts {
    fn newest(&self) -> Vec<QuarantineRecord> {
        self.counted.get().newest
    }

    async fn look(&self, record: &QuarantineRecord) -> Result<Bytes, String> {
        self.job.row_thumbnail(record).await
    }
}

impl WorkDetails for Counts {
    fn tables(&self) -> Vec<Table> {
        let counts = self.counted.get();
        let table = |id, title: &str, rows: Vec<(String, String)>, empty: &str| Table {
            id,
            title: title.into(),
            about: String::new(),
            rows,
            empty: empty.into(),
        };
        let became =
            rows(&counts.summary).map(|(outcome, rows)| (outcome.replace('_', " "), rows.to_string()));
        let of_texts = texts(&counts.summary).into_iter().flat_map(|(source, counts)| {
            counts.iter().map(move |(outcome, texts)| (format!("{source}: {outcome}"), texts.to_string()))
        });
        let mut reasons: Vec<(&String, &u64)> = counts.rejected.iter().collect();
        reasons.sort_by_key(|(reason, rows)| (std::cmp::Reverse(**rows), (*reason).clone()));
        let reasons = reasons.into_iter().map(|(reason, rows)| (reason.clone(), rows.to_string()));
        vec![
            table("rows", "What became of the rows", became.into(), "No task is done yet."),
            table("texts", "What became of the texts", of_texts.collect(), "No text is scored yet."),
            table("rejected", "Rows that cannot be used, by reason", reasons.collect(), "None so far."),
        ]
    }

    fn json(&self) -> Map<String, Value> {
        let counts = self.counted.get();
        let rows: Map<String, Value> = rows(&counts.summary)
            .into_iter()
            .map(|(outcome, rows)| (outcome.to_owned(), rows.into()))
            .collect();
        Map::from_iter([
            ("rows_by_outcome".to_owned(), rows.into()),
            ("web".to_owned(), json!(counts.summary.web)),
            ("synthetic".to_owned(), json!(counts.summary.synthetic)),
            ("rejected".to_owned(), json!(counts.rejected)),
        ])
    }

    fn show(&self, telemetry: &Telemetry) {
        let counted = self.counted.clone();
        telemetry.ask("curation", move |telemetry| {
            let summary = counted.get().summary;
            for (outcome, rows) in rows(&summary) {
                telemetry.raise(&CURATED_ROWS_TOTAL, &[outcome], rows as f64);
            }
            for (source, counts) in texts(&summary) {
                for (outcome, texts) in counts {
                    telemetry.raise(&CURATED_TEXTS_TOTAL, &[source, outcome], *texts as f64);
                }
            }
        });
    }
}

fn rows(summary: &CurationSummary) -> [(&'static str, u64); 4] {
    [
        ("written", summary.rows),
        ("duplicate", summary.duplicates),
        ("without_text", summary.without_text),
        ("rejected", summary.rejected),
    ]
}

fn texts(summary: &CurationSummary) -> [(&'static str, &TextCounts); 2] {
    [("web", &summary.web), ("synthetic", &summary.synthetic)]
}
