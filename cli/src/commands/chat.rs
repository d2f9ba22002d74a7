//! `chat`: a dialogue about pictures, in the words in which a model was trained to answer, or those that
//! BLIP-2 was shown with (`Question: … Answer: …`).

use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use blip2_evaluation::captioning::{Captioner, SoftPrompts};
use blip2_run::exit::Exit;
use clap::Args;
use serde::Serialize;

use super::generate::read_image;
use super::{print_json, print_text};
use crate::decoding::WriterArguments;
use crate::error::CliError;
use crate::places::typed_model;

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    #[command(flatten)]
    pub(crate) writer: WriterArguments,
    /// The picture to talk about.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: PathBuf,
    /// Print one JSON line a turn.
    #[arg(long)]
    pub(crate) json: bool,
}

const COMMANDS: &str = "/image FILE looks at another picture, /reset forgets the dialogue, /quit ends";

/// Questions that were answered, in the words in which they were asked.
#[derive(Debug, Default)]
struct Dialogue {
    turns: Vec<(String, String)>,
}

impl Dialogue {
    /// The turns and the words of a question, for the language model to go on.
    fn prompt(&self, words: &str) -> String {
        let turns = self.turns.iter().map(|(words, answer)| format!("{words} {answer}. "));
        format!("{}{words}", turns.collect::<String>())
    }

    /// Forgets the oldest turns until `fits` the prompt of a question in these words; how many, or `None` if
    /// the question alone does not fit.
    fn make_room(
        &mut self,
        words: &str,
        fits: impl Fn(&str) -> Result<bool, CliError>,
    ) -> Result<Option<usize>, CliError> {
        let mut dropped = 0;
        while !fits(&self.prompt(words))? {
            if self.turns.is_empty() {
                return Ok(None);
            }
            self.turns.remove(0);
            dropped += 1;
        }
        Ok(Some(dropped))
    }

    fn answered(&mut self, words: String, answer: &str) {
        // The format ends every answer with a full stop.
        self.turns.push((words, answer.trim_end_matches('.').to_owned()));
    }
}

/// What a line of input asks for.
#[derive(Debug, PartialEq)]
enum Input<'a> {
    Nothing,
    Question(&'a str),
    Image(&'a Path),
    Reset,
    Quit,
    Unknown(&'a str),
}

impl<'a> Input<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim();
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, rest.trim()) {
            ("", _) => Self::Nothing,
            ("/quit", "") => Self::Quit,
            ("/reset", "") => Self::Reset,
            ("/image", file) if !file.is_empty() => Self::Image(Path::new(file)),
            _ if line.starts_with('/') => Self::Unknown(line),
            _ => Self::Question(line),
        }
    }
}

/// The line of a turn.
#[derive(Debug, Serialize)]
struct Line<'a> {
    image: &'a str,
    question: &'a str,
    prompt: &'a str,
    answer: &'a str,
    tokens: &'a [u32],
    /// Turns that were forgotten to make room for this one.
    dropped_turns: usize,
}

/// Reads questions from standard input and answers them.
pub(crate) async fn run(arguments: ChatArguments) -> Result<Exit, CliError> {
    let model = typed_model("--model", &arguments.writer.model).await?;
    tokio::task::spawn_blocking(move || Chat::open(arguments, &model)?.run())
        .await
        .map_err(|error| CliError::failed(format!("the chat thread failed: {error}")))?
}

struct Chat {
    arguments: ChatArguments,
    captioner: Captioner,
    image: PathBuf,
    soft_prompts: SoftPrompts,
    dialogue: Dialogue,
}

impl Chat {
    fn open(mut arguments: ChatArguments, model: &Path) -> Result<Self, CliError> {
        let image = arguments.image.clone();
        let picture = read_image(&image)?;
        let captioner = Captioner::open(model, arguments.writer.device, arguments.writer.dtype.narrow())?;
        // What the user says next would begin so.
        if let Some(next_turn) = captioner.turns_begin_with() {
            arguments.writer.decoding.also_stop_at(next_turn);
        }
        let soft_prompts = captioner.encode(&[picture])?;
        Ok(Self { arguments, captioner, image, soft_prompts, dialogue: Dialogue::default() })
    }

    fn run(mut self) -> Result<Exit, CliError> {
        let terminal = std::io::stdin().is_terminal();
        if terminal {
            eprintln!("Ask about {}; {COMMANDS}.", self.image.display());
        }
        loop {
            if terminal {
                eprint!("> ");
            }
            let mut line = String::new();
            let read = std::io::stdin().lock().read_line(&mut line);
            let read = read.map_err(|error| CliError::BadInput(format!("standard input: {error}")))?;
            if read == 0 {
                return Ok(Exit::Done);
            }
            match Input::of(&line) {
                Input::Nothing => {}
                Input::Quit => return Ok(Exit::Done),
                Input::Reset => self.dialogue = Dialogue::default(),
                Input::Image(path) => self.look_at(path)?,
                Input::Unknown(line) => eprintln!("{line} is not a command: {COMMANDS}"),
                Input::Question(question) => self.answer(question)?,
            }
        }
    }

    /// A picture that cannot be read leaves things as they are.
    fn look_at(&mut self, path: &Path) -> Result<(), CliError> {
        match read_image(path) {
            Ok(picture) => {
                self.soft_prompts = self.captioner.encode(&[picture])?;
                self.image = path.to_owned();
                self.dialogue = Dialogue::default();
            }
            Err(error) => eprintln!("error: {error}; still looking at {}", self.image.display()),
        }
        Ok(())
    }

    fn answer(&mut self, question: &str) -> Result<(), CliError> {
        let room = self.captioner.room().saturating_sub(self.arguments.writer.decoding.max_new_tokens());
        let captioner = &self.captioner;
        let turn = captioner.turn(question);
        let dropped =
            self.dialogue.make_room(&turn.words, |prompt| Ok(captioner.prompt_tokens(prompt)? <= room))?;
        let Some(dropped) = dropped else {
            eprintln!(
                "error: the question is longer than the {room} tokens that the language model has room for"
            );
            return Ok(());
        };
        if dropped > 0 {
            eprintln!(
                "the dialogue is longer than the language model reads: its first {dropped} turns are forgotten"
            );
        }
        let asked = self.captioner.asked(&turn.question, self.dialogue.prompt(&turn.words));
        let texts = self.captioner.answer(
            &self.soft_prompts,
            std::slice::from_ref(&asked),
            &self.arguments.writer.decoding.decoding(1)?,
        )?;
        let Some(answer) = texts.into_iter().flatten().next() else {
            return Err(CliError::failed("the model wrote nothing"));
        };
        if self.arguments.json {
            let image = self.image.to_string_lossy();
            let (tokens, text) = (&answer.tokens, &answer.text);
            print_json(&Line {
                image: &image,
                question,
                prompt: &asked.prompt,
                answer: text,
                tokens,
                dropped_turns: dropped,
            })?;
        } else {
            print_text(&format!("{}\n", answer.text))?;
        }
        self.dialogue.answered(turn.words, &answer.text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(question: &str) -> String {
        format!("Question: {question} Answer:")
    }

    #[test]
    fn turns_are_written_as_published() {
        let mut dialogue = Dialogue::default();
        assert_eq!(dialogue.prompt(&words("what is it?")), "Question: what is it? Answer:");
        dialogue.answered(words("what is it?"), "a cat.");
        dialogue.answered(words("where?"), "on a mat");
        let want =
            "Question: what is it? Answer: a cat. Question: where? Answer: on a mat. Question: why? Answer:";
        assert_eq!(dialogue.prompt(&words("why?")), want);
    }

    #[test]
    fn instructions_follow_each_other_as_they_are() {
        let mut dialogue = Dialogue::default();
        dialogue.answered("what is it?".into(), "a cat");
        assert_eq!(dialogue.prompt("why?"), "what is it? a cat. why?");
    }

    #[test]
    fn the_oldest_turns_make_room() {
        let mut dialogue = Dialogue::default();
        for turn in 0..5 {
            dialogue.answered(words(&format!("q{turn}")), "yes");
        }
        let last = words("last");
        let room = dialogue.prompt(&last).len() - 40;
        assert_eq!(dialogue.make_room(&last, |prompt| Ok(prompt.len() <= room)).unwrap(), Some(2));
        assert_eq!(dialogue.turns[0].0, words("q2"));
        assert_eq!(dialogue.make_room(&last, |_| Ok(false)).unwrap(), None);
    }

    #[test]
    fn commands_and_questions_are_told_apart() {
        assert_eq!(Input::of("  what?\n"), Input::Question("what?"));
        assert_eq!(Input::of("/image a b.png\n"), Input::Image(Path::new("a b.png")));
        assert_eq!(
            (Input::of("/reset"), Input::of("/quit\n"), Input::of(" \n")),
            (Input::Reset, Input::Quit, Input::Nothing)
        );
        assert_eq!(Input::of("/image"), Input::Unknown("/image"));
    }
}
