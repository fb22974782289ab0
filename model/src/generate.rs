//! From a prompt to tokens, several of them under way at a time.

use std::{collections::VecDeque, ops::ControlFlow};

use web_time::Instant;

use crate::{
    Error, Result,
    model::{Choice, Model},
};

/// Seconds of work that may be under way: what is computed past a stop or a cancellation is for
/// nothing, and on a slow device keeps it busy that long.
const UNDER_WAY_S: f64 = 0.03;

/// How many submissions may be under way where a token takes `token_s` seconds (0: not known yet), at
/// most `depth`.
fn allowed(token_s: f64, depth: usize) -> usize {
    let fit = if token_s > 0.0 { (UNDER_WAY_S / token_s).floor() } else { 2.0 };
    (1..=depth).rev().find(|n| *n as f64 <= fit).unwrap_or(1)
}

/// What to generate.
#[derive(Debug, Clone)]
pub struct Request {
    /// Token ids to run first; continues the model's sequence.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most.
    pub max_new: u32,
    /// How tokens are chosen.
    pub choice: Choice,
    /// Ids that end the answer; empty: it only ends by `max_new`.
    pub stop: Vec<u32>,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Seconds until the first token was known.
    pub first_token_s: f64,
    /// Tokens generated, the stop id not counted.
    pub tokens: u32,
    /// Seconds from the first token to the last.
    pub decode_s: f64,
    /// The id that ended the answer.
    pub stopped_by: Option<u32>,
}

impl Stats {
    /// Decoded tokens a second: those after the first, which prefill chose.
    pub fn tokens_per_second(&self) -> f64 {
        if self.tokens > 1 && self.decode_s > 0.0 { f64::from(self.tokens - 1) / self.decode_s } else { 0.0 }
    }
}

impl Model {
    /// Generates tokens and hands each to `on_token` as soon as the host knows it; `Break` stops.
    ///
    /// The device runs ahead of the host by a few tokens: what it computed past a stop is
    /// forgotten. [`Model::position`] then says how many tokens are in the cache: after a stop id,
    /// all that were handed out; otherwise the last one has not been run yet.
    ///
    /// # Errors
    /// An empty prompt, `max_new` of zero, a context overflow, a failing device.
    pub async fn generate(
        &mut self,
        request: &Request,
        on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Stats> {
        if request.max_new == 0 {
            return Err(Error::Usage("nothing to generate: the number of new tokens is 0".into()));
        }
        check(request.choice)?;
        let prompt = u32::try_from(request.prompt.len()).unwrap_or(u32::MAX);
        // The last token generated is never run, so it needs no room.
        self.reserve(prompt.saturating_add(request.max_new - 1)).await?;
        let start = Instant::now();
        let mut stats = Stats { prompt_tokens: prompt, ..Stats::default() };
        let first = self.prefill(&request.prompt, request.choice).await?;
        let behind_prompt = self.position();
        let mut under_way = VecDeque::from([first]);
        let mut submitted = 1;
        let mut first_known = start;
        // Time between tokens, smoothed, and when the last one came.
        let (mut token_s, mut known) = (0.0, start);
        let outcome = loop {
            let depth = allowed(token_s, self.depth());
            while under_way.len() < depth && submitted < request.max_new && self.depth() > 1 {
                under_way.push_back(self.decode(request.choice)?);
                submitted += 1;
            }
            let Some(fetch) = under_way.pop_front() else { break Ok(()) };
            let token = match self.take(fetch).await {
                Ok(t) => t,
                Err(e) => break Err(e),
            };
            if token as usize >= self.config().vocab_size {
                break Err(Error::unsupported(
                    "a model whose logits are not numbers",
                    "its weights hold NaN or overflow; fetch the file again, or use --activations f32",
                ));
            }
            let now = Instant::now();
            if stats.tokens == 0 {
                first_known = now;
                stats.first_token_s = (now - start).as_secs_f64();
            } else {
                let s = (now - known).as_secs_f64();
                token_s = if token_s > 0.0 { 0.5 * (token_s + s) } else { s };
            }
            known = now;
            if request.stop.contains(&token) {
                stats.stopped_by = Some(token);
                break Ok(());
            }
            stats.tokens += 1;
            if on_token(token).is_break() || stats.tokens == request.max_new {
                break Ok(());
            }
            // Where the host must gather for each token, the next one can only go now.
            if self.depth() == 1 && submitted < request.max_new {
                self.gather_for(token)?;
                under_way.push_back(self.decode(request.choice)?);
                submitted += 1;
            }
        };
        stats.decode_s = first_known.elapsed().as_secs_f64();
        for fetch in under_way {
            // Only to free its place; the token is past the end.
            let _ = self.take(fetch).await;
        }
        // A stop id was chosen by running the last token; otherwise that one is still to be run.
        let run = if stats.stopped_by.is_some() { stats.tokens } else { stats.tokens.saturating_sub(1) };
        self.set_position(behind_prompt + run);
        outcome.map(|()| stats)
    }
}

fn check(choice: Choice) -> Result<()> {
    if let Choice::Sample { temperature, top_k, top_p, .. } = choice {
        if !(temperature > 0.0 && temperature.is_finite()) {
            return Err(Error::Usage(format!(
                "a temperature of {temperature} cannot be; it must be above 0 (0 for greedy)"
            )));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::Usage(format!(
                "a top-p of {top_p} cannot be; it must be above 0 and at most 1"
            )));
        }
        if top_k > Choice::MAX_TOP_K {
            return Err(Error::Usage(format!(
                "a top-k of {top_k} is over the sampler's {}",
                Choice::MAX_TOP_K
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn slow_devices_have_less_under_way() {
        let cases = [(0.0, 4, 2), (0.001, 4, 4), (0.009, 4, 3), (0.016, 4, 1), (0.5, 4, 1), (0.001, 1, 1)];
        for (token_s, depth, expected) in cases {
            assert_eq!(allowed(token_s, depth), expected, "{token_s} s a token, at most {depth}");
        }
    }
}
