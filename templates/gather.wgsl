{#- out[token] = table[id] * scale * multiplier, as f32. Rows outside [first, first + rows) belong
    to another binding of a split table and are left alone; see codegen/src/kernels/gather.rs. -#}
{{ <prelude web={web} subgroups={use.subgroups} f16={use.f16} /> }}
{% if not s.by_slot -%}
@group(0) @binding({{ b.ids }}) var<storage, read> ids: array<u32>;
{%- endif %}
{{ <weight_quads name="table" binding={b.table} format={s.format} quads={d.quads} fours={d.fours == 1} /> }}
{% set scale = s.scale if s.scale == "row" or s.scale == "group" or s.scale == "none" else "parts" -%}
{% if scale != "none" -%}
{{ <table_scales binding={b.scales} scale={scale} native={c.f16} /> }}
{%- endif %}
@group(0) @binding({{ b.out }}) var<storage, read_write> out: array<vec4<f32>>;

const QUADS = {{ d.quads }}u;

@compute @workgroup_size({{ c.wg }})
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) t: u32) {
  let q = wid.y * {{ c.wg }}u + t;
{%- if s.by_slot %}
  let row = wid.x;
{%- else %}
  let id = ids[wid.x];
  let row = id - {{ s.first }}u;
  if (id < {{ s.first }}u || row >= {{ s.rows }}u) { return; }
{%- endif %}
  if (q >= QUADS) { return; }
  {{ <table_weights format={s.format} factor={d.factor} /> }}
{%- if scale == "parts" %}
  // The padding of the last part has no scale of its own; its weights are zero.
  let part = min(q / {{ d.part_quads }}u, {{ d.parts - 1 }}u);
{%- endif %}
  out[wid.x * QUADS + q] = {{ <table_value scale={scale} multiplier={s.multiplier} fours={d.fours == 1} groups={d.groups} parts={d.parts} /> }};
}
