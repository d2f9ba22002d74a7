//! Beam search with the rules of `transformers` 5; [`EarlyStopping`] says when a text is done.

use std::cmp::Ordering;

use super::decoder::{Decoder, FORBIDDEN, row};
use super::options::{EarlyStopping, GenerateOptions, Stop};
use super::scores::{adjust, check, log_softmax};
use blip2_model_files::error::ModelError;

/// A continuation and the sum of its tokens' logarithmic probabilities, or its final score.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<u32>,
    score: f32,
}

/// A running hypothesis with one more token.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    parent: usize,
    token: u32,
    score: f32,
}

impl Candidate {
    /// Best first; equal scores by parent and token.
    fn order(&self, other: &Self) -> Ordering {
        other.score.total_cmp(&self.score).then((self.parent, self.token).cmp(&(other.parent, other.token)))
    }
}

/// The search for one text.
struct Search<'a> {
    prompt: &'a [u32],
    options: &'a GenerateOptions,
    stop: Stop<'a>,
    running: Vec<Hypothesis>,
    /// Best first, at most as many as beams.
    finished: Vec<Hypothesis>,
}

impl<'a> Search<'a> {
    fn new(prompt: &'a [u32], options: &'a GenerateOptions, stop: Stop<'a>) -> Self {
        let start = Hypothesis { tokens: Vec::new(), score: 0.0 };
        Self { prompt, options, stop, running: vec![start], finished: Vec::new() }
    }

    /// Takes one step with the scores of the running hypotheses' next tokens, which start at `first_row`.
    ///
    /// Returns for each hypothesis that goes on the row it continues and its new token.
    fn step(
        &mut self,
        logits: &mut [f32],
        first_row: usize,
        vocabulary: usize,
    ) -> Result<Vec<(usize, u32)>, ModelError> {
        let candidates = self.candidates(logits, first_row, vocabulary)?;
        let length = self.running[0].tokens.len() + 1;
        let at_limit = length == self.options.max_new_tokens;
        let ends = |candidate: &Candidate| {
            at_limit || self.options.ends(candidate.token) || (self.stop)(&self.follow(candidate).tokens)
        };
        let (beams, divisor) = (self.options.beams, self.options.divisor(length));
        // Ended candidates beyond the first `beams` neither finish nor run.
        let mut ended = Vec::new();
        let mut going_on: Vec<Candidate> = Vec::new();
        for (place, candidate) in candidates.into_iter().enumerate() {
            match ends(&candidate) {
                true if place < beams => {
                    let score = candidate.score / divisor;
                    ended.push(Hypothesis { score, ..self.follow(&candidate) });
                }
                false if going_on.len() < beams => going_on.push(candidate),
                _ => {}
            }
        }
        let running = going_on.iter().map(|candidate| self.follow(candidate)).collect();
        self.finished.extend(ended);
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beams);
        self.running = running;
        if self.is_done(divisor) {
            return Ok(Vec::new());
        }
        Ok(going_on.iter().map(|candidate| (first_row + candidate.parent, candidate.token)).collect())
    }

    /// The best continuations of the running hypotheses: enough that `beams` go on whatever ends.
    fn candidates(
        &self,
        logits: &mut [f32],
        first_row: usize,
        vocabulary: usize,
    ) -> Result<Vec<Candidate>, ModelError> {
        let wanted = self.options.beams * (1 + self.options.eos.len()).max(2);
        let mut candidates = Vec::new();
        for (parent, hypothesis) in self.running.iter().enumerate() {
            let scores = row(logits, first_row + parent, vocabulary)?;
            check(scores)?;
            log_softmax(scores);
            adjust(scores, self.prompt, &hypothesis.tokens, self.options);
            let allowed = scores.iter().enumerate().filter(|(_, score)| **score > f32::NEG_INFINITY);
            candidates.extend(allowed.map(|(token, score)| Candidate {
                parent,
                token: token as u32,
                score: hypothesis.score + score,
            }));
        }
        if candidates.is_empty() {
            return Err(ModelError::input("generation options", FORBIDDEN));
        }
        if candidates.len() > wanted {
            candidates.select_nth_unstable_by(wanted - 1, Candidate::order);
            candidates.truncate(wanted);
        }
        candidates.sort_unstable_by(Candidate::order);
        Ok(candidates)
    }

    fn follow(&self, candidate: &Candidate) -> Hypothesis {
        let mut tokens = self.running[candidate.parent].tokens.clone();
        tokens.push(candidate.token);
        Hypothesis { tokens, score: candidate.score }
    }

    /// `divisor` is that of the running hypotheses' scores at their present length.
    fn is_done(&self, divisor: f32) -> bool {
        let Some(best) = self.running.first() else {
            return true;
        };
        let Some(worst) = self.finished.last().filter(|_| self.finished.len() == self.options.beams) else {
            return false;
        };
        let penalty = self.options.length_penalty;
        match self.options.early_stopping {
            EarlyStopping::WhenFull => true,
            EarlyStopping::Never if penalty > 0.0 => {
                let longest = self.options.divisor(self.options.max_new_tokens);
                best.score / longest <= worst.score
            }
            EarlyStopping::Heuristic | EarlyStopping::Never => best.score / divisor <= worst.score,
        }
    }

    /// The best finished text; the best running one where the rules let none finish.
    fn result(self) -> Vec<u32> {
        let best = self.finished.into_iter().chain(self.running).next();
        best.map_or_else(Vec::new, |hypothesis| hypothesis.tokens)
    }
}

/// Texts that are done leave the batch.
pub(super) fn search(
    decoder: &mut impl Decoder,
    prompts: &[Vec<u32>],
    options: &GenerateOptions,
    stop: Stop<'_>,
) -> Result<Vec<Vec<u32>>, ModelError> {
    let vocabulary = decoder.vocabulary();
    let new = |prompt| Search::new(prompt, options, stop);
    let mut searches: Vec<Search<'_>> = prompts.iter().map(|prompt: &Vec<u32>| new(prompt)).collect();
    let mut active: Vec<usize> = (0..searches.len()).collect();
    let mut logits = decoder.start()?;
    while !active.is_empty() {
        let (mut parents, mut tokens, mut next) = (Vec::new(), Vec::new(), Vec::new());
        let mut first_row = 0;
        for index in active {
            let search = &mut searches[index];
            let rows = search.running.len();
            let going_on = search.step(&mut logits, first_row, vocabulary)?;
            first_row += rows;
            if !going_on.is_empty() {
                next.push(index);
            }
            for (parent, token) in going_on {
                parents.push(parent);
                tokens.push(token);
            }
        }
        active = next;
        if !active.is_empty() {
            logits = decoder.advance(&parents, &tokens)?;
        }
    }
    Ok(searches.into_iter().map(Search::result).collect())
}

#[cfg(test)]
mod tests {
    use super::super::tests::Chain;
    use super::*;

    const END: u32 = 3;

    /// Greedy search goes 0 → 1 and then finds only even odds; 0 → 2 → end is likelier as a whole.
    fn garden_path() -> [&'static [f32]; 4] {
        [&[0.0, 0.6, 0.4, 0.0], &[0.3, 0.3, 0.2, 0.2], &[0.05, 0.0, 0.05, 0.9], &[0.25; 4]]
    }

    fn run(options: &GenerateOptions) -> Vec<u32> {
        let prompts = vec![vec![0]];
        search(&mut Chain::new(&garden_path(), &prompts), &prompts, options, &|_| false).unwrap().remove(0)
    }

    #[test]
    fn a_worse_first_token_can_win() {
        let options = GenerateOptions { max_new_tokens: 5, beams: 2, eos: vec![END], ..Default::default() };
        assert_eq!(run(&options), [2, END]);
        let no_early_end = GenerateOptions { min_new_tokens: 3, ..options };
        assert_eq!(run(&no_early_end).iter().position(|token| *token == END), Some(3));
    }

    #[test]
    fn the_limit_finishes_what_runs() {
        let options = GenerateOptions { max_new_tokens: 1, beams: 2, eos: vec![END], ..Default::default() };
        assert_eq!(run(&options), [1]);
    }

    #[test]
    fn a_rule_ends_hypotheses_like_an_end_token() {
        let options = GenerateOptions { max_new_tokens: 5, beams: 2, ..Default::default() };
        let prompts = vec![vec![0]];
        let stop: Stop<'_> = &|tokens| tokens.ends_with(&[2, END]);
        let texts = search(&mut Chain::new(&garden_path(), &prompts), &prompts, &options, stop).unwrap();
        assert_eq!(texts, [[2, END]]);
    }

    /// The finished `[1, 3]` scores -1 a token; the running one is worse now and, at twice the length,
    /// better.
    #[test]
    fn early_stopping_decides_when_a_full_beam_is_enough() {
        let done = |early_stopping, length_penalty, running| {
            let options = GenerateOptions {
                max_new_tokens: 4,
                beams: 1,
                early_stopping,
                length_penalty,
                ..Default::default()
            };
            let mut search = Search::new(&[], &options, &|_| false);
            search.finished = vec![Hypothesis { tokens: vec![1, END], score: -1.0 }];
            search.running = vec![Hypothesis { tokens: vec![1, 0], score: running }];
            search.is_done(2f64.powf(length_penalty) as f32)
        };
        use EarlyStopping::{Heuristic, Never, WhenFull};
        assert!(done(Heuristic, 1.0, -2.5) && !done(Never, 1.0, -2.5));
        assert!(!done(Heuristic, 1.0, -1.5) && done(WhenFull, 1.0, -1.5));
        assert!(done(Never, 0.0, -2.5) && done(Never, 1.0, -4.5));
    }

    #[test]
    fn the_offset_counts_as_tokens_of_every_hypothesis() {
        let divisor = |length_penalty, length_offset| {
            GenerateOptions { length_penalty, length_offset, ..Default::default() }.divisor(6)
        };
        assert_eq!((divisor(1.0, 0), divisor(1.0, 3), divisor(0.0, 3)), (6.0, 9.0, 1.0));
        assert_eq!(divisor(-1.0, 2), 0.125);
    }

    #[test]
    fn every_rule_forbidding_everything_is_an_error() {
        let prompts = vec![vec![0, 1, 2, 3]];
        let options = GenerateOptions { beams: 2, no_repeat_ngram: 1, ..Default::default() };
        let mut chain = Chain::new(&garden_path(), &prompts);
        let error = search(&mut chain, &prompts, &options, &|_| false).unwrap_err().to_string();
        assert!(error.contains("forbid"), "{error}");
    }

    #[test]
    fn a_batch_equals_each_text_alone() {
        let options = GenerateOptions { max_new_tokens: 6, beams: 3, eos: vec![END], ..Default::default() };
        let prompts = vec![vec![0], vec![2], vec![1]];
        let together =
            search(&mut Chain::new(&garden_path(), &prompts), &prompts, &options, &|_| false).unwrap();
        for (prompt, text) in prompts.iter().zip(together) {
            let alone = vec![prompt.clone()];
            assert_eq!(
                search(&mut Chain::new(&garden_path(), &alone), &alone, &options, &|_| false).unwrap(),
                [text]
            );
        }
    }
}
