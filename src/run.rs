//! `wgforge run`: continues a text, or a list of token ids.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{IsTerminal as _, Read as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use pollster::block_on;
use serde_json::json;
use wgforge::model::{Choice, GenerationConfig, Request, Stats, Tokenizer, WeightMode};

use crate::cli::{Global, RunArgs};
use crate::console::{self, Graceful, usage};
use crate::session::Session;
use crate::tensors;

/// Tokens to write when nobody says how many.
const DEFAULT_MAX_NEW: u32 = 256;

/// Runs the subcommand.
pub(crate) fn execute(global: &Global, args: &RunArgs) -> Result<()> {
    // What can be wrong about the arguments shows before gigabytes are read.
    let text = match (&args.tokens, &args.prompt) {
        (Some(_), _) => None,
        (None, Some(prompt)) => Some(prompt.clone()),
        (None, None) => Some(from_stdin()?),
    };
    let ids = args.tokens.as_deref().map(tensors::token_ids).transpose()?;
    let mut session = Session::open(global, WeightMode::Int4, args.json)?;
    let tokenizer = session.source.tokenizer.clone();
    let prompt = match (ids, &text, &tokenizer) {
        (Some(ids), ..) => ids,
        (None, Some(text), Some(tokenizer)) => encode(tokenizer, text)?,
        _ => return usage("the checkpoint has no tokenizer.json, so give token ids: --tokens \"2,105,…\""),
    };
    let (choice, seed) = choice(session.model.generation(), args);
    let max_new = args.max_new.unwrap_or_else(|| default_max_new(&session, prompt.len()));
    let stop = if args.ignore_eos { Vec::new() } else { session.model.generation().eos.clone() };
    let request = Request { prompt, max_new, choice, stop };

    let mut ids = Vec::new();
    let (stats, interrupted) = stream(&mut session, &request, tokenizer.as_deref(), args.json, &mut ids)?;
    if args.json {
        let mut result = session.json();
        result["prompt_tokens"] = json!(stats.prompt_tokens);
        result["tokens"] = json!(ids);
        result["text"] = json!(tokenizer.map(|t| t.decode(&ids)).transpose()?);
        result["first_token_ms"] = json!(stats.first_token_s * 1e3);
        result["decode_tok_s"] = json!(stats.tokens_per_second());
        result["stopped_by"] = json!(stats.stopped_by);
        result["interrupted"] = json!(interrupted);
        result["seed"] = json!(seed);
        result["load_s"] = json!(session.load_s);
        return console::json(&result);
    }
    let seed = seed.map_or("greedy".to_owned(), |seed| format!("seed {seed}"));
    eprintln!("{}{}, {seed}", if interrupted { "stopped; " } else { "" }, statistics(&stats));
    eprintln!("{}", session.describe());
    Ok(())
}

/// Generates to standard output (unless `quiet`): text, or ids where there is no vocabulary.
/// Also says whether Ctrl-C ended it.
pub(crate) fn stream(
    session: &mut Session,
    request: &Request,
    tokenizer: Option<&Tokenizer>,
    quiet: bool,
    ids: &mut Vec<u32>,
) -> Result<(Stats, bool)> {
    let graceful = Graceful::begin();
    let mut decoder = tokenizer.map(|t| t.decoder(false));
    let mut trouble = None;
    let stats = block_on(session.model.generate(request, &mut |id| {
        let separator = if ids.is_empty() { "" } else { "," };
        ids.push(id);
        let piece = match &mut decoder {
            Some(decoder) => decoder.push(id),
            None => Some(format!("{separator}{id}")),
        };
        if let Some(piece) = piece.filter(|_| !quiet)
            && let Err(error) = console::write(&piece)
        {
            trouble = Some(error);
        }
        if trouble.is_some() || graceful.interrupted() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }))?;
    if let Some(trouble) = trouble {
        return Err(trouble);
    }
    if !quiet {
        let rest = decoder.and_then(|mut d| d.finish()).unwrap_or_default();
        console::line(rest)?;
    }
    Ok((stats, graceful.interrupted()))
}

/// One line about the speed of a generation.
pub(crate) fn statistics(stats: &Stats) -> String {
    format!(
        "{} + {} tokens, first after {:.1} ms, then {:.1} tokens/s",
        stats.prompt_tokens,
        stats.tokens,
        stats.first_token_s * 1e3,
        stats.tokens_per_second()
    )
}

/// The ids of a text as the beginning of a sequence. Control tokens in it are text like any other.
pub(crate) fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let mut ids = vec![tokenizer.bos()?];
    ids.extend(tokenizer.encode(text, false)?);
    Ok(ids)
}

fn from_stdin() -> Result<String> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        return usage("no prompt: give one as an argument or on standard input, or ids with --tokens");
    }
    let mut text = String::new();
    stdin.read_to_string(&mut text).context("reading the prompt from standard input")?;
    // Editors and `echo` end a file with a line end that nobody means to be continued after.
    Ok(text.strip_suffix('\n').map_or(text.clone(), str::to_owned))
}

/// What the context still holds, up to the default.
fn default_max_new(session: &Session, prompt: usize) -> u32 {
    // The last token generated is never run, so it needs no room.
    let room = session.model.config().max_position.saturating_sub(prompt) + 1;
    u32::try_from(room).unwrap_or(u32::MAX).clamp(1, DEFAULT_MAX_NEW)
}

/// How tokens are chosen, and the seed where chance has a part in it.
fn choice(defaults: &GenerationConfig, args: &RunArgs) -> (Choice, Option<u64>) {
    let asked = args.top_k.is_some() || args.top_p.is_some() || args.seed.is_some();
    let given =
        args.temperature.unwrap_or(if defaults.do_sample || asked { defaults.temperature } else { 0.0 });
    if given == 0.0 {
        return (Choice::Greedy, None);
    }
    // 32 bits of chance are enough, and can be typed again.
    let seed = args.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish() >> 32);
    let top_k = u32::try_from(defaults.top_k).unwrap_or(u32::MAX).min(Choice::MAX_TOP_K);
    let choice = Choice::Sample {
        temperature: given,
        top_k: args.top_k.unwrap_or(top_k),
        top_p: args.top_p.unwrap_or(defaults.top_p),
        seed,
    };
    (choice, Some(seed))
}
