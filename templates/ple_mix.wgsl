{#- Per-layer inputs of a token: ple[layer] = (RMS(context[layer] * scale) * w + table[layer]) / sqrt(2).
    One workgroup a (token, layer); see codegen/src/kernels/ple_mix.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{{ <input name="context" binding={b.context} ty={s.context} native={c.f16} /> }}
@group(0) @binding({{ b.table }}) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding({{ b.weight }}) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<vec4<f32>>;
{{ <workgroup_reduce name="workgroup_sum" wg={c.wg} sg={c.sg} /> }}

const QUADS = {{ d.quads }}u;        // of one layer's input
const ROW = {{ d.row_quads }}u;      // of a token in `context` and `table`
const OUT = {{ d.out_quads }}u;      // of a token in `out`, one layer

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let base = wid.x * ROW + wid.y * QUADS;
  var squares = 0.0;
  for (var q = t; q < QUADS; q += {{ c.wg }}u) {
    let v = context_at(base + q) * {{ s.scale }};
    squares += dot(v, v);
  }
  let r = 1.0 / sqrt(workgroup_sum(t, squares) / {{ s.dim }}.0 + {{ s.eps }});
  for (var q = t; q < QUADS; q += {{ c.wg }}u) {
    let v = context_at(base + q) * {{ s.scale }};
    out[wid.y * {{ d.layer_quads }}u + wid.x * OUT + q] = (v * r * weight[q] + table[base + q]) * 0.70710678118654752;
  }
}
