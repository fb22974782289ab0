//! From a prompt to tokens, several of them under way at a time.

use std::{collections::VecDeque, ops::ControlFlow};

use web_time::Instant;

use crate::{
    Error, Result,
    backend::Fetch,
    model::{Choice, Model},
};

/// Seconds of work that may be under way: what is computed past a stop or a cancellation is for
/// nothing, and on a slow device keeps it busy that long.
const UNDER_WAY_S: f64 = 0.03;

/// How many tokens may be under way where one takes `token_s` seconds (0: not known yet), at most `most`,
/// and how many of them a submission makes: few enough that most are under way while the host records the
/// next ones.
fn ahead(token_s: f64, most: u32) -> (u32, u32) {
    let fit = if token_s > 0.0 { (UNDER_WAY_S / token_s).floor() } else { 2.0 };
    let tokens = (1..=most).rev().find(|n| f64::from(*n) <= fit).unwrap_or(1);
    (tokens, (tokens / 4).max(1))
}

/// Tokens that one submission makes, and their ids on the way back.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) ids: Fetch,
    pub(crate) tokens: u32,
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
        let (mut flying, mut submitted) = (1, 1);
        let mut first_known = start;
        // Time a token takes, smoothed, and when the last ones came.
        let (mut token_s, mut known) = (0.0, start);
        let outcome = 'all: loop {
            let (most, each) = ahead(token_s, self.ahead());
            while self.ahead() > 1 && submitted < request.max_new {
                let wanted = each.min(request.max_new - submitted);
                if flying + wanted > most {
                    break;
                }
                let next = self.decode(request.choice, wanted)?;
                flying += next.tokens;
                submitted += next.tokens;
                under_way.push_back(next);
            }
            let Some(oldest) = under_way.pop_front() else { break Ok(()) };
            flying -= oldest.tokens;
            let ids = match self.take(oldest.ids).await {
                Ok(ids) => ids,
                Err(e) => break Err(e),
            };
            let now = Instant::now();
            if stats.tokens == 0 {
                first_known = now;
                stats.first_token_s = (now - start).as_secs_f64();
            } else {
                let s = (now - known).as_secs_f64() / ids.len().max(1) as f64;
                token_s = if token_s > 0.0 { 0.5 * (token_s + s) } else { s };
            }
            known = now;
            for id in ids {
                if id as usize >= self.config().vocab_size {
                    break 'all Err(Error::unsupported(
                        "a model whose logits are not numbers",
                        "its weights hold NaN or overflow; fetch the file again, or use --activations f32",
                    ));
                }
                if request.stop.contains(&id) {
                    stats.stopped_by = Some(id);
                    break 'all Ok(());
                }
                stats.tokens += 1;
                if on_token(id).is_break() || stats.tokens == request.max_new {
                    break 'all Ok(());
                }
                // Where the host must gather for each token, the next one can only go now.
                if self.ahead() == 1 && submitted < request.max_new {
                    self.gather_for(id)?;
                    under_way.push_back(self.decode(request.choice, 1)?);
                    flying += 1;
                    submitted += 1;
                }
            }
        };
        stats.decode_s = first_known.elapsed().as_secs_f64();
        for late in under_way {
            // Only to free its place; its tokens are past the end.
            let _ = self.take(late.ids).await;
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
    use super::ahead;

    #[test]
    fn slow_devices_have_less_under_way() {
        let cases = [
            (0.0, 8, (2, 1)),
            (0.001, 8, (8, 2)),
            (0.006, 8, (5, 1)),
            (0.009, 8, (3, 1)),
            (0.016, 8, (1, 1)),
            (0.5, 8, (1, 1)),
            (0.001, 1, (1, 1)),
        ];
        for (token_s, most, expected) in cases {
            assert_eq!(ahead(token_s, most), expected, "{token_s} s a token, at most {most}");
        }
    }
}
