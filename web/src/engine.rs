//! A model on the browser's device, as the worker drives it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use js_sys::Function;
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;
use web_time::Instant;
use wgforge_model::{
    Checkpoint, Choice, Conversation, Kernels, Model, Options, Stats, Target, Tokenizer,
    chat::{Chat, Message, Part, Role},
    checkpoint::Bytes,
};
use wgforge_runtime::{Backend, CapsMask, Device, DeviceOptions};

use crate::{
    adapter::AdapterInfo,
    error::{js, named, usage},
    file::{JsFile, Reader},
    tune::{tune, with_tuned},
};

/// What [`open`] is told beside the files.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct OpenOptions {
    /// What to call the model.
    label: String,
    adapter: AdapterInfo,
    /// A database that was tuned in this browser.
    tuned: Option<String>,
    /// Tokens of a prefill chunk.
    chunk: Option<u32>,
    /// Largest binding to use, bytes.
    max_binding_bytes: Option<u64>,
    /// `f16` or `f32` for vectors between kernels, and for the KV cache.
    activations: Option<Float>,
    kv: Option<Float>,
    /// Capabilities to leave unused.
    no_subgroups: bool,
    no_f16: bool,
    baseline_limits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Float {
    F16,
    F32,
}

/// A message as JavaScript has it.
#[derive(Debug, Deserialize)]
struct JsMessage {
    role: String,
    content: String,
}

/// How to answer.
#[derive(Debug, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct GenerateOptions {
    /// 0: the most likely token, always.
    temperature: Option<f32>,
    top_k: Option<u32>,
    top_p: Option<f32>,
    max_tokens: u32,
    seed: u64,
    thinking: bool,
    /// Token ids of an answer that was broken off, to go on from there.
    begun: Vec<u32>,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        let (temperature, top_k, top_p) = (None, None, None);
        Self { temperature, top_k, top_p, max_tokens: 1024, seed: 0, thinking: false, begun: Vec::new() }
    }
}

/// What the page's meter shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    adapter: String,
    backend: String,
    device_type: String,
    kernels: String,
    why: String,
    class: String,
    model: String,
    format: String,
    activations: &'static str,
    kv: &'static str,
    chat: bool,
    max_tokens: usize,
    weight_bytes_per_token: u64,
    memory_bytes: u64,
    /// Bytes a second this device was seen to read; `None` before [`Engine::bandwidth`].
    read_bandwidth: Option<f64>,
    load_seconds: f64,
    last: Option<Answer>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    prompt_tokens: u32,
    /// Of those, tokens that had been run before.
    known_tokens: u32,
    tokens: u32,
    first_token_seconds: f64,
    decode_seconds: f64,
    tokens_per_second: f64,
    dispatches: u32,
    /// `stop`, `length` or `abort`.
    ended: &'static str,
}

/// A loaded model with one conversation.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    device: Device,
    model: Model,
    tokenizer: Tokenizer,
    chat: Option<Chat>,
    conversation: Conversation,
    kernels: Kernels,
    why: String,
    read_gb_s: Option<f64>,
    load_s: f64,
    last: Option<Answer>,
}

/// Opens a device and loads a model: the content of `config.json`, `generation_config.json` and
/// `tokenizer.json`, the weights' files, and `options` as JSON. `progress` is told the bytes that have
/// been packed and sent; what it throws is returned once all have been: whoever cannot wait ends the worker.
///
/// # Errors
/// An `Error` whose name is one of those that `wgforge.d.ts` lists.
#[wasm_bindgen]
pub async fn open(
    config: Vec<u8>,
    generation: Option<Vec<u8>>,
    tokenizer: Vec<u8>,
    files: Vec<JsFile>,
    options: String,
    progress: Function,
) -> Result<Engine, JsValue> {
    let start = Instant::now();
    let options: OpenOptions = serde_json::from_str(&options).map_err(usage)?;
    let files = files.into_iter().map(|f| (f.name(), Bytes::elsewhere(Reader::new(f)))).collect();
    let checkpoint =
        Checkpoint::from_files(&options.label, &config, generation.as_deref(), files).map_err(js)?;
    checkpoint.validate().map_err(js)?;
    let tokenizer = {
        let read = Tokenizer::from_bytes(&tokenizer).map_err(js)?;
        // Tens of megabytes that nobody needs any more.
        drop(tokenizer);
        read
    };
    let device = Device::request(&DeviceOptions {
        backend: Some(Backend::BrowserWebGpu),
        disable: CapsMask {
            subgroups: options.no_subgroups,
            f16: options.no_f16,
            limits: options.baseline_limits,
            ..CapsMask::default()
        },
        identity: Some(options.adapter.identity()),
        ..DeviceOptions::default()
    })
    .await
    .map_err(js)?;
    let (mut kernels, mut why) = Kernels::embedded(device.report());
    if let Some(toml) = &options.tuned {
        match with_tuned(&kernels, device.report(), toml) {
            Ok((better, reason)) => (kernels, why) = (better, format!("{reason}; else {why}")),
            Err(reason) => why = format!("{why}; what was tuned here is not used: {reason}"),
        }
    }
    let model_options = Options {
        binding_limit: options.max_binding_bytes,
        chunk: options.chunk.unwrap_or(Options::default().chunk),
        f16_activations: options.activations.map(|f| f == Float::F16),
        f16_kv: options.kv.map(|f| f == Float::F16),
        ..Options::default()
    };
    let mut thrown = None;
    let mut done = 0.0;
    let model = Model::load(
        &Arc::new(checkpoint),
        Target::Gpu(device.clone(), kernels.clone()),
        &model_options,
        &mut |bytes| {
            done += bytes as f64;
            if let Err(error) = progress.call1(&JsValue::NULL, &done.into()) {
                thrown.get_or_insert(error);
            }
        },
    )
    .await;
    if let Some(error) = thrown {
        return Err(error);
    }
    let model = model.map_err(js)?;
    let chat = Chat::of(&tokenizer);
    let load_s = start.elapsed().as_secs_f64();
    Ok(Engine {
        device,
        model,
        tokenizer,
        chat,
        conversation: Conversation::default(),
        kernels,
        why,
        read_gb_s: None,
        load_s,
        last: None,
    })
}

#[wasm_bindgen]
impl Engine {
    /// Compiles the kernels by running each.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn warm_up(&mut self) -> Result<(), JsValue> {
        let options = GenerateOptions { temperature: Some(1.0), ..GenerateOptions::default() };
        let choices = [Choice::Greedy, self.choice(&options)];
        self.model.warm_up(&choices).await.map_err(js)
    }

    /// Answers a conversation: `messages` and `options` as JSON. `on_token` is called with the id,
    /// the text that is certain now (perhaps empty) and whether it is a thought, and stops the
    /// answer by returning true.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn chat(
        &mut self,
        messages: String,
        options: String,
        on_token: Function,
    ) -> Result<(), JsValue> {
        let messages: Vec<JsMessage> = serde_json::from_str(&messages).map_err(usage)?;
        let options: GenerateOptions = serde_json::from_str(&options).map_err(usage)?;
        let prompt = self.prompt(&messages, options.thinking)?;
        self.generate(prompt, &options, &on_token).await
    }

    /// Continues token ids.
    ///
    /// # Errors
    /// As [`open`].
    pub async fn complete(
        &mut self,
        prompt: Vec<u32>,
        options: String,
        on_token: Function,
    ) -> Result<(), JsValue> {
        let options: GenerateOptions = serde_json::from_str(&options).map_err(usage)?;
        self.generate(prompt, &options, &on_token).await
    }

    /// The ids of a text, without anything added.
    ///
    /// # Errors
    /// A text that cannot be encoded.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        self.tokenizer.encode(text, false).map_err(js)
    }

    /// Adapter, kernels, model and the last answer's figures, as JSON.
    pub fn report(&self) -> String {
        let adapter = self.device.report();
        let (activations, kv) = self.model.precision();
        let report = Report {
            adapter: adapter.name.clone(),
            backend: adapter.backend.clone(),
            device_type: adapter.device_type.clone(),
            kernels: self.kernels.source().to_owned(),
            why: self.why.clone(),
            class: adapter.caps.class(),
            model: self.model.label().to_owned(),
            format: self.model.format().to_owned(),
            activations,
            kv,
            chat: self.chat.is_some(),
            max_tokens: self.model.config().max_position,
            weight_bytes_per_token: self.model.weight_bytes_per_token(),
            memory_bytes: self.model.memory_in_use(),
            read_bandwidth: self.read_gb_s.map(|rate| rate * 1e9),
            load_seconds: self.load_s,
            last: self.last.clone(),
        };
        serde_json::to_string(&report).unwrap_or_default()
    }

    /// Measures what the device reads a second, in bytes: a second's work, and a gigabyte of GPU
    /// memory for as long, or what there is.
    ///
    /// # Errors
    /// A device without room, or one that fails.
    pub async fn bandwidth(&mut self) -> Result<f64, JsValue> {
        let rate = wgforge_autotune::read_gb_s(&self.device).await.map_err(js)?;
        self.read_gb_s = Some(rate);
        Ok(rate * 1e9)
    }

    /// Tunes the kernels of this model within `budget_ms`; gives what became of it as JSON. The
    /// conversation's caches are emptied.
    ///
    /// # Errors
    /// A device that fails.
    pub async fn autotune(&mut self, budget_ms: u32, tell: Function) -> Result<String, JsValue> {
        self.reset();
        let budget = Duration::from_millis(budget_ms.into());
        let tuned = tune(&self.device, &mut self.model, &mut self.kernels, budget, &tell).await?;
        if tuned.kept {
            self.why = "tuned in this browser on this adapter".into();
        }
        Ok(serde_json::to_string(&tuned).unwrap_or_default())
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        self.model.reset();
        self.conversation = Conversation::default();
        self.last = None;
    }

    /// The device, for what must be possible in the midst of an answer.
    pub fn device(&self) -> DeviceHandle {
        DeviceHandle(self.device.clone())
    }
}

/// The device of an engine.
#[wasm_bindgen]
#[derive(Debug)]
pub struct DeviceHandle(Device);

#[wasm_bindgen]
impl DeviceHandle {
    /// Destroys it, as a driver that crashes does: to try what happens then.
    pub fn destroy(&self) {
        self.0.wgpu().destroy();
    }
}

impl Engine {
    fn prompt(&self, messages: &[JsMessage], thinking: bool) -> Result<Vec<u32>, JsValue> {
        if messages.is_empty() {
            return Err(usage("there are no messages"));
        }
        let Some(chat) = &self.chat else {
            // A vocabulary without turns continues a text.
            let text: String = messages.iter().map(|m| m.content.as_str()).collect();
            let mut ids = vec![self.tokenizer.bos().map_err(js)?];
            ids.extend(self.tokenizer.encode(&text, false).map_err(js)?);
            return Ok(ids);
        };
        let messages: Result<Vec<Message>, JsValue> = messages
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let role = match m.role.as_str() {
                    "system" if i == 0 => Role::System,
                    "system" => return Err(usage("a system message can only be the first")),
                    "user" => Role::User,
                    "assistant" | "model" => Role::Model,
                    other => return Err(usage(format!("a message of role {other:?}"))),
                };
                Ok(Message { role, content: m.content.clone() })
            })
            .collect();
        chat.prompt(&self.tokenizer, &messages?, thinking).map_err(js)
    }

    fn choice(&self, options: &GenerateOptions) -> Choice {
        let published = self.model.generation();
        let temperature = options.temperature.unwrap_or(published.temperature);
        if temperature == 0.0 {
            return Choice::Greedy;
        }
        let top_k = options.top_k.unwrap_or_else(|| u32::try_from(published.top_k).unwrap_or(0));
        let top_p = options.top_p.unwrap_or(published.top_p);
        Choice::Sample { temperature, top_k, top_p, seed: options.seed }
    }

    async fn generate(
        &mut self,
        mut prompt: Vec<u32>,
        options: &GenerateOptions,
        on_token: &Function,
    ) -> Result<(), JsValue> {
        let choice = self.choice(options);
        let stop = self.model.generation().eos.clone();
        let mut words = self.tokenizer.decoder(false);
        let mut parts = self.chat.as_ref().map(Chat::parts);
        // What the page has already is decoded again only to know where in a character it ends.
        for id in &options.begun {
            let text = words.push(*id).unwrap_or_default();
            if let Some(parts) = &mut parts {
                parts.push(*id, &text);
            }
        }
        prompt.extend(&options.begun);
        let room = self.model.config().max_position.saturating_sub(prompt.len());
        let max_new = options.max_tokens.min(u32::try_from(room).unwrap_or(u32::MAX));
        if max_new == 0 {
            let text = "the conversation fills the model's context; begin a new one, or leave out its oldest messages";
            return Err(named("ContextOverflowError", text));
        }
        let known = u32::try_from(self.conversation.known(&prompt)).unwrap_or(u32::MAX);
        let (mut thrown, mut aborted) = (None, false);
        let mut tell = |id: Option<u32>, text: &str, part: Part| {
            let id = id.map_or(JsValue::UNDEFINED, JsValue::from);
            match on_token.call3(&JsValue::NULL, &id, &text.into(), &(part == Part::Thought).into()) {
                Ok(answer) if answer.is_truthy() => {
                    aborted = true;
                    ControlFlow::Break(())
                }
                Ok(_) => ControlFlow::Continue(()),
                Err(error) => {
                    thrown.get_or_insert(error);
                    ControlFlow::Break(())
                }
            }
        };
        let _ = self.model.take_dispatches();
        let outcome = self
            .conversation
            .generate(&mut self.model, &prompt, max_new, choice, &stop, &mut |id| {
                let text = words.push(id).unwrap_or_default();
                let part = match &mut parts {
                    Some(parts) => parts.push(id, &text),
                    None => Some(Part::Answer),
                };
                tell(Some(id), if part.is_some() { &text } else { "" }, part.unwrap_or(Part::Answer))
            })
            .await;
        if let Some(rest) = words.finish() {
            let _ = tell(None, &rest, Part::Answer);
        }
        if let Some(error) = thrown {
            return Err(error);
        }
        let Stats { prompt_tokens, first_token_s, tokens, decode_s, stopped_by } = outcome.map_err(js)?;
        let per_second = if tokens > 1 && decode_s > 0.0 { f64::from(tokens - 1) / decode_s } else { 0.0 };
        self.last = Some(Answer {
            prompt_tokens: prompt_tokens + known,
            known_tokens: known,
            tokens,
            first_token_seconds: first_token_s,
            decode_seconds: decode_s,
            tokens_per_second: per_second,
            dispatches: self.model.take_dispatches(),
            ended: match (aborted, stopped_by) {
                (true, _) => "abort",
                (_, Some(_)) => "stop",
                _ => "length",
            },
        });
        Ok(())
    }
}
