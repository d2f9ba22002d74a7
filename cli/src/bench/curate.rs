//! `bench curate`: how fast pictures are captioned and scored, phase by phase.

mod preset;
mod speed;

use std::time::Duration;

use blip2_curation::models;
use blip2_curation::scoring::{CuratedImage, CurationTimes};
use blip2_curation::settings::CurationModelSettings;
use blip2_dataset::corpus::samples::read_all;
use clap::Args;
use serde::Serialize;

use self::preset::Preset;
use self::speed::{CurationLoad, CurationSpeed};
use super::printing::measure_and_print;
use crate::commands::worker::limit_threads;
use crate::config::{ConfigArguments, load};
use crate::error::CliError;
use crate::typed_numbers;
use blip2_run::exit::Exit;
use blip2_telemetry::process::peak_memory_bytes;

/// What is curated, and how much of it.
#[derive(Debug, Clone, Args)]
pub(crate) struct CurateArguments {
    /// Models and pictures are those of the section `curation`; nothing is written.
    #[command(flatten)]
    config: ConfigArguments,
    /// Models of these sizes with random weights, over random pictures, in place of the configuration's.
    #[arg(long, value_enum, conflicts_with_all = ["config", "set"])]
    preset: Option<Preset>,
    /// Pictures of a preset at a time.
    #[arg(long, default_value_t = 8, requires = "preset", conflicts_with_all = ["config", "set"], value_parser = clap::value_parser!(u32).range(1..=65_536), value_name = "B")]
    batch: u32,
    /// Captions of each picture of a preset.
    #[arg(long, default_value_t = 10, requires = "preset", conflicts_with_all = ["config", "set"], value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "N")]
    captions: u32,
    /// Tokens of each caption of a preset.
    #[arg(long, default_value_t = 12, requires = "preset", conflicts_with_all = ["config", "set"], value_parser = clap::value_parser!(u32).range(1..=75), value_name = "N")]
    tokens: u32,
    /// Pictures to curate; the first batch is done once more before, unmeasured.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pictures: u32,
    /// Compute threads; 0 takes all cores.
    #[arg(long, default_value_t = 0, value_parser = typed_numbers::threads, value_name = "N")]
    threads: usize,
    /// Print one JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    pictures: u64,
    texts: u64,
    batch: usize,
    text_batch: usize,
    pictures_per_s: f64,
    /// Of all phases, in the order in which they happen.
    phases: Vec<Phase>,
    peak_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Phase {
    phase: &'static str,
    seconds: f64,
    pictures_per_s: f64,
}

/// Measures.
pub(super) async fn run(arguments: CurateArguments) -> Result<Exit, CliError> {
    limit_threads(arguments.threads)?;
    if let Some(preset) = arguments.preset {
        let json = arguments.json;
        return measure_and_print(json, move || of_preset(&arguments, preset), described).await;
    }
    let config = load(&arguments.config)?.config.curation;
    let mode = config.selection.mode;
    let set = read_all(&config.input, &config.columns, config.max_pixels).await?;
    if set.samples.is_empty() {
        return Err(CliError::BadInput("curation.input: no row can be used".into()));
    }
    let all = set.samples.into_iter().cycle().take(arguments.pictures as usize);
    let images: Vec<_> = (0..)
        .zip(all)
        .map(|(draw, sample)| CuratedImage { image: sample.image, web: sample.captions, draw })
        .collect();
    let measure = move || {
        let models = models::open(&config.models, mode)?;
        let warm = images.len().min(config.models.batch);
        models.score(&images[..warm], &mut CurationTimes::default())?;
        let mut times = CurationTimes::default();
        models.score(&images, &mut times)?;
        Ok(summarised(&times, config.models.batch, config.models.text_batch))
    };
    measure_and_print(arguments.json, measure, described).await
}

fn of_preset(arguments: &CurateArguments, preset: Preset) -> Result<Report, CliError> {
    let settings = CurationModelSettings {
        captions: arguments.captions as usize,
        min_new_tokens: arguments.tokens as usize,
        max_new_tokens: arguments.tokens as usize,
        batch: arguments.batch as usize,
        ..CurationModelSettings::default()
    };
    let load = CurationLoad { pictures: arguments.pictures.into(), settings };
    let times = CurationSpeed::random(&preset.sizes())?.measure(&load)?;
    Ok(summarised(&times, load.settings.batch, load.settings.text_batch))
}

fn summarised(times: &CurationTimes, batch: usize, text_batch: usize) -> Report {
    let rate = |seconds: f64| if seconds > 0.0 { times.images as f64 / seconds } else { 0.0 };
    let phase = |phase, time: Duration| Phase {
        phase,
        seconds: time.as_secs_f64(),
        pictures_per_s: rate(time.as_secs_f64()),
    };
    let phases = vec![
        phase("captioner, pictures", times.captioner.images),
        phase("captioner, texts", times.captioner.texts),
        phase("CLIP, pictures", times.clip.images),
        phase("CLIP, texts", times.clip.texts),
        phase("filter, pictures", times.itm.images),
        phase("filter, texts", times.itm.texts),
    ];
    let phases: Vec<Phase> = phases.into_iter().filter(|phase| phase.seconds > 0.0).collect();
    let seconds: f64 = phases.iter().map(|phase| phase.seconds).sum();
    Report {
        pictures: times.images,
        texts: times.texts,
        batch,
        text_batch,
        pictures_per_s: rate(seconds),
        phases,
        peak_bytes: peak_memory_bytes(),
    }
}

fn described(report: &Report) -> String {
    let mut text = format!(
        "{:.1} pictures/s: {} pictures, {} texts; {} pictures and {} texts at a time\n",
        report.pictures_per_s, report.pictures, report.texts, report.batch, report.text_batch
    );
    for Phase { phase, seconds, pictures_per_s } in &report.phases {
        text += &format!("  {phase:<20} {seconds:8.2} s  {pictures_per_s:10.1} pictures/s\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use blip2_curation::scoring::ModelTimes;
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Typed {
        #[command(flatten)]
        bench: CurateArguments,
    }

    #[test]
    fn a_preset_stands_in_the_place_of_a_configuration() {
        let parse = |text: &str| Typed::try_parse_from(text.split(' ')).map(|typed| typed.bench);
        let typed = parse("test --preset blip-base --batch 4").unwrap();
        assert_eq!((typed.preset, typed.batch, typed.tokens), (Some(Preset::BlipBase), 4, 12));
        assert!(parse("test --config x").is_ok());
        for refused in ["--preset blip-base --config x", "--config x --batch 4", "--tokens 3"] {
            assert!(parse(&format!("test {refused}")).is_err(), "{refused}");
        }
    }

    #[test]
    fn phases_that_took_no_time_are_left_out() {
        let times = CurationTimes {
            images: 10,
            texts: 30,
            captioner: ModelTimes { texts: Duration::from_secs(4), ..ModelTimes::default() },
            clip: ModelTimes { texts: Duration::from_secs(1), ..ModelTimes::default() },
            ..CurationTimes::default()
        };
        let report = summarised(&times, 16, 64);
        assert_eq!((report.phases.len(), report.pictures_per_s), (2, 2.0));
        assert!(described(&report).contains("captioner, texts         4.00 s         2.5 pictures/s"));
    }
}
