//! From names to typed weights, with every shape held against the configuration.

use super::{Checkpoint, Dtype, Format, Grids, LayerWeights, Linear, PREFIXES, Table, TensorView};
use crate::{Error, Result};

impl Checkpoint {
    /// The weights of one layer.
    pub fn layer(&self, layer: usize) -> Result<LayerWeights> {
        let c = &self.config;
        if layer >= c.num_layers() {
            return Err(Error::Usage(format!("layer {layer} of a model of {} layers", c.num_layers())));
        }
        let (h, f, d) = (c.hidden, c.intermediate(layer), c.head_dim(layer));
        let (q, kv, owns) = (c.q_dim(layer), c.kv_dim(layer), c.owns_kv(layer));
        let linear = |part: &str, rows, cols| self.linear(&format!("layers.{layer}.{part}"), rows, cols);
        let norm = |part: &str, n| self.vector(&format!("layers.{layer}.{part}.weight"), n);
        let own = |part: &str| owns.then(|| linear(part, kv, h)).transpose();
        Ok(LayerWeights {
            q: linear("self_attn.q_proj", q, h)?,
            k: own("self_attn.k_proj")?,
            v: own("self_attn.v_proj")?,
            o: linear("self_attn.o_proj", h, q)?,
            gate: linear("mlp.gate_proj", f, h)?,
            up: linear("mlp.up_proj", f, h)?,
            down: linear("mlp.down_proj", h, f)?,
            ple_gate: linear("per_layer_input_gate", c.ple_dim, h)?,
            ple_proj: linear("per_layer_projection", h, c.ple_dim)?,
            input_norm: norm("input_layernorm", h)?,
            post_attention_norm: norm("post_attention_layernorm", h)?,
            pre_feedforward_norm: norm("pre_feedforward_layernorm", h)?,
            post_feedforward_norm: norm("post_feedforward_layernorm", h)?,
            post_ple_norm: norm("post_per_layer_input_norm", h)?,
            q_norm: norm("self_attn.q_norm", d)?,
            k_norm: owns.then(|| norm("self_attn.k_norm", d)).transpose()?,
            scalar: self.scalar(&self.full(&format!("layers.{layer}.layer_scalar")))?,
        })
    }

    /// The embedding table, one row a token.
    pub fn embed(&self) -> Result<Table> {
        self.table("embed_tokens", self.config.vocab_size, self.config.hidden)
    }

    /// The per-layer embedding table: a row holds every layer's slice, in order.
    pub fn ple_table(&self) -> Result<Table> {
        let c = &self.config;
        self.table("embed_tokens_per_layer", c.vocab_size_per_layer_input, c.ple_width())
    }

    /// From the scaled embedding to every layer's slice.
    pub fn ple_projection(&self) -> Result<Linear> {
        self.linear("per_layer_model_projection", self.config.ple_width(), self.config.hidden)
    }

    /// The norm over each slice of that projection.
    pub fn ple_projection_norm(&self) -> Result<Vec<f32>> {
        self.vector("per_layer_projection_norm.weight", self.config.ple_dim)
    }

    /// The norm before the head.
    pub fn final_norm(&self) -> Result<Vec<f32>> {
        self.vector("norm.weight", self.config.hidden)
    }

    /// The output head: `lm_head`, or the embedding table where the two are tied. The mobile
    /// files say "not tied" but hold the same bytes twice, so the embedding also stands in there
    /// for an `lm_head` that was not fetched.
    pub fn head(&self) -> Result<Linear> {
        let c = &self.config;
        let present = ["lm_head", "language_model.lm_head"]
            .into_iter()
            .find(|name| self.tensors.contains_key(&format!("{name}.weight")));
        if !c.tie_word_embeddings {
            if let Some(name) = present {
                return self.linear_named(name, "lm_head", c.vocab_size, c.hidden);
            }
            if c.quantization.is_none() {
                return Err(self.missing("lm_head.weight"));
            }
        }
        let table = self.embed()?;
        let row_scale = match table.scale {
            None => None,
            Some((scale, 1)) => Some(scale),
            Some((_, per_row)) => {
                return Err(Error::unsupported(
                    format!("{}: an output head with {per_row} scales a row", table.name),
                    "use a checkpoint with one scale a row, or with an lm_head of its own",
                ));
            }
        };
        let Table { name, rows, cols, format, data, .. } = table;
        Ok(Linear { name, rows, cols, format, data, row_scale, grids: None })
    }

    /// Checks that every tensor is there, in the right shape and type, and that no scale, grid,
    /// norm or scalar is NaN, infinite or negative where it must not be. Reads those, and not
    /// the matrices.
    pub fn validate(&self) -> Result<()> {
        self.config.check(&self.label)?;
        self.embed()?;
        self.ple_table()?;
        self.ple_projection()?;
        self.ple_projection_norm()?;
        for layer in 0..self.config.num_layers() {
            self.layer(layer)?;
        }
        self.final_norm()?;
        self.head()?;
        Ok(())
    }

    fn full(&self, module: &str) -> String {
        format!("{}{module}", self.prefix)
    }

    fn missing(&self, tensor: &str) -> Error {
        Error::MissingTensor { file: self.label.clone(), tensor: tensor.to_owned() }
    }

    fn linear(&self, module: &str, rows: usize, cols: usize) -> Result<Linear> {
        self.linear_named(&self.full(module), &format!("{}{module}", PREFIXES[0]), rows, cols)
    }

    /// `published` is the name that the quantisation rules know.
    fn linear_named(&self, name: &str, published: &str, rows: usize, cols: usize) -> Result<Linear> {
        let view = self.tensor(&format!("{name}.weight"))?;
        let bits = self.config.quantization.as_ref().and_then(|q| q.bits(published));
        let format = matrix(&view, bits, rows, cols)?;
        let mut linear = Linear {
            name: name.to_owned(),
            rows,
            cols,
            format,
            data: view.data,
            row_scale: None,
            grids: None,
        };
        if format.is_integer() {
            let (scale, per_row) = self.scales(&format!("{name}.weight_scale"), rows)?;
            if per_row != 1 {
                let got = vec![rows, per_row];
                let tensor = format!("{name}.weight_scale");
                return Err(Error::TensorShape { tensor, got, wanted: vec![rows, 1] });
            }
            linear.row_scale = Some(scale);
            let grids = Grids {
                input: self.grid(&format!("{name}.input_activation_scale"))?,
                output: self.grid(&format!("{name}.output_activation_scale"))?,
            };
            linear.grids = (grids.input != 0.0 || grids.output != 0.0).then_some(grids);
        }
        Ok(linear)
    }

    fn table(&self, module: &str, rows: usize, cols: usize) -> Result<Table> {
        let quantization = self.config.quantization.as_ref().filter(|q| q.embeddings);
        let bits = quantization.and_then(|q| q.bits(&format!("{}{module}", PREFIXES[0])));
        let name = self.full(module);
        let part = if bits.is_some() { "embedding_quantized" } else { "weight" };
        let view = self.tensor(&format!("{name}.{part}"))?;
        let format = matrix(&view, bits, rows, cols)?;
        let mut scale = None;
        if format.is_integer() {
            let (scales, per_row) = self.scales(&format!("{name}.embedding_scale"), rows)?;
            if !cols.is_multiple_of(per_row) {
                let tensor = format!("{name}.embedding_scale");
                return Err(Error::TensorShape { tensor, got: vec![rows, per_row], wanted: vec![rows, 1] });
            }
            scale = Some((scales, per_row));
        }
        Ok(Table { name, rows, cols, format, data: view.data, scale })
    }

    /// Scales `[rows, n]` or `[rows]`, and n.
    fn scales(&self, name: &str, rows: usize) -> Result<(Vec<f32>, usize)> {
        let view = self.tensor(name)?;
        let per_row = match *view.shape {
            [r] if r == rows => 1,
            [r, n] if r == rows && n > 0 => n,
            _ => return Err(shape(&view, &[rows, 1])),
        };
        let scales = floats(&view)?;
        // A row that is all zeros may have any scale, 0 among them.
        finite(view.name, &scales, |x| x >= 0.0, "a finite number ≥ 0")?;
        Ok((scales, per_row))
    }

    /// A grid's step; 0 where there is none.
    fn grid(&self, name: &str) -> Result<f32> {
        if !self.has(name) {
            return Ok(0.0);
        }
        let step = self.scalar(name)?;
        finite(name, &[step], |x| x >= 0.0, "a finite number ≥ 0")?;
        Ok(step)
    }

    fn scalar(&self, name: &str) -> Result<f32> {
        let view = self.tensor(name)?;
        if !matches!(view.shape, [] | [1]) {
            return Err(shape(&view, &[1]));
        }
        let values = floats(&view)?;
        finite(view.name, &values, |_| true, "a finite number")?;
        values.first().copied().ok_or_else(|| shape(&view, &[1]))
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let view = self.tensor(&self.full(name))?;
        if view.shape != [len] {
            return Err(shape(&view, &[len]));
        }
        let values = floats(&view)?;
        finite(view.name, &values, |_| true, "a finite number")?;
        Ok(values)
    }
}

fn shape(view: &TensorView<'_>, wanted: &[usize]) -> Error {
    Error::TensorShape { tensor: view.name.to_owned(), got: view.shape.to_vec(), wanted: wanted.to_vec() }
}

fn dtype(view: &TensorView<'_>, wanted: impl Into<String>) -> Error {
    Error::TensorDtype { tensor: view.name.to_owned(), got: view.dtype.to_string(), wanted: wanted.into() }
}

/// The format of a matrix that must be stored in `bits` bits, or as floats where that is `None`.
fn matrix(view: &TensorView<'_>, bits: Option<u32>, rows: usize, cols: usize) -> Result<Format> {
    let (format, stored) = match (bits, view.dtype) {
        (None, Dtype::BF16) => (Format::Bf16, cols),
        (None, Dtype::F16) => (Format::F16, cols),
        (None, Dtype::F32) => (Format::F32, cols),
        (None, _) => return Err(dtype(view, "BF16, F16 or F32, as config.json has no quantisation for it")),
        (Some(8), Dtype::I8) => (Format::I8, cols),
        (Some(4), Dtype::U8) => (Format::I4, cols / 2),
        (Some(2), Dtype::U8) => (Format::I2, cols / 4),
        (Some(8), _) => return Err(dtype(view, "I8 (quantization_config says 8 bits)")),
        (Some(bits), _) => return Err(dtype(view, format!("U8 (quantization_config says {bits} bits)"))),
    };
    if view.shape != [rows, stored] {
        return Err(shape(view, &[rows, stored]));
    }
    Ok(format)
}

/// The elements as f32.
fn floats(view: &TensorView<'_>) -> Result<Vec<f32>> {
    let format = match view.dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::Bf16,
        _ => return Err(dtype(view, "F32, F16 or BF16")),
    };
    let mut values = vec![0.0; view.data.len() * 8 / format.bits()];
    format.decode(&view.data.all()?, &mut values);
    Ok(values)
}

fn finite(tensor: &str, values: &[f32], ok: impl Fn(f32) -> bool, wanted: &'static str) -> Result<()> {
    match values.iter().position(|&x| !(x.is_finite() && ok(x))) {
        None => Ok(()),
        Some(index) => {
            Err(Error::TensorValue { tensor: tensor.to_owned(), index, value: values[index], wanted })
        }
    }
}
