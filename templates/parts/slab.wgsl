{#- A product whose columns are shared out among workgroups, see codegen/src/kernels/slab.rs.
    `hs` holds the codes of the workgroup's slab, a quad a word (of `floats` the two digits, and in `hs_unit` what
    they count for); `slab_rows`, where sums are `gathered`, those of fours of rows, so that neighbouring threads add
    to neighbouring places. -#}
{% component slab_memory(w2: integer, out: integer, bits: integer, fields: integer, pieces: integer,
                         quads: integer, gathered: integer, floats: integer) -%}
@group(0) @binding({{ w2 }}) var<storage, read> w2: array<vec4<u32>>;
@group(0) @binding({{ out }}) var<storage, read_write> out: array<atomic<i32>>;
{%- if floats == 1 %}
var<workgroup> hs: array<vec2<u32>, {{ pieces * fields }}>;
var<workgroup> hs_unit: array<f32, {{ pieces * fields }}>;
{%- if gathered == 1 %}
var<workgroup> slab_rows: array<vec4<f32>, {{ quads }}>;
{%- endif %}
{{ <digits_of /> }}
fn put_hs(quad: u32, value: vec4<f32>, grid: f32) {
  let d = digits_of(value, largest_of(value));
  hs[quad] = d.words;
  hs_unit[quad] = d.unit{% if bits == 4 %} / 16.0{% elif bits == 2 %} / 64.0{% endif %};
}
// Element `i` of the sums: 2^-23 of what is left of whole ones, which are few.
fn add_fixed(i: u32, value: f32) {
  let whole = round(clamp(value, -1073741824.0, 1073741824.0));
  let at = (i / 64u) * 128u + i % 64u;
  atomicAdd(&out[at], i32(round((value - whole) * 8388608.0)));
  if (whole != 0.0) { atomicAdd(&out[at + 64u], i32(whole)); }
}
{%- else %}
var<workgroup> hs: array<u32, {{ pieces * fields }}>;
{%- if gathered == 1 %}
var<workgroup> slab_rows: array<vec4<i32>, {{ quads }}>;
{%- endif %}
fn put_hs(quad: u32, value: vec4<f32>, grid: f32) {
  let q = vec4<i32>(clamp(round(value / grid), vec4<f32>(-128.0), vec4<f32>(127.0)));
  hs[quad] = pack4xI8(q);
}
{%- endif %}
// Four consecutive columns out of a word, with the factor 2^{{ 8 - bits }}.
{%- for f in range(end=fields) %}
{%- if bits == 8 %}
fn slab_field_{{ f }}(w: u32) -> u32 { return w; }
{%- elif bits == 4 %}
fn slab_field_{{ f }}(w: u32) -> u32 { return (w << {{ 4 - 4 * f }}u) & 0xf0f0f0f0u; }
{%- else %}
fn slab_field_{{ f }}(w: u32) -> u32 { return (w << {{ 6 - 2 * f }}u) & 0xc0c0c0c0u; }
{%- endif %}
{%- endfor %}
{%- endcomponent slab_memory %}

{#- Words 2 `at` and 2 `at` + 1 of `of` from its quad `first` on: of a quad only what is needed. -#}
{% component two_words(of: string, first: integer, at: string) -%}
vec2<u32>({{ of }}[{{ first }}u + {{ at }} / 2u][{{ at }} % 2u * 2u], {{ of }}[{{ first }}u + {{ at }} / 2u][{{ at }} % 2u * 2u + 1u])
{%- endcomponent two_words %}

{#- Adds to a sum: an integer, or a float in two words. -#}
{% component add_sum(floats: integer, at: string, value: string) -%}
{% if floats == 1 %}add_fixed({{ at }}, {{ value }});{% else %}atomicAdd(&out[{{ at }}], {{ value }});{% endif %}
{%- endcomponent add_sum %}

{#- A thread's share of the matrix, on its way: fours of rows from `quad0` on, the `turn`th of them first,
    pieces from `piece0` on. Workgroups that have all rows take them in different turns, so that they do
    not all add to the same places at the same time. -#}
{% component slab_loads(wg: integer, split: integer, quads: integer, per: integer, mine: integer,
                        chunks: integer, floats: integer, fields: integer, groups: integer, scales: integer,
                        quad0: string, piece0: string, turn: string = "") -%}
{%- for j in range(end=per) %}
  let item{{ j }} = t + {{ j * wg }}u;
{%- if turn %}
  let turned{{ j }} = min(item{{ j }} / {{ split }}u, {{ quads - 1 }}u) + {{ turn }};
  let four{{ j }} = {{ quad0 }} + select(turned{{ j }}, turned{{ j }} - {{ quads }}u, turned{{ j }} >= {{ quads }}u);
{%- else %}
  let four{{ j }} = {{ quad0 }} + min(item{{ j }} / {{ split }}u, {{ quads - 1 }}u);
{%- endif %}
  let piece{{ j }} = four{{ j }} * {{ chunks }}u + {{ piece0 }} + item{{ j }} % {{ split }}u;
{%- for p in range(end=mine) %}
  let s{{ j }}_{{ p }} = w2[piece{{ j }} + {{ p * split }}u];
{%- endfor %}
{%- if floats == 1 %}
{%- for p in range(end=mine) %}
  let group{{ j }}_{{ p }} = four{{ j }} * {{ groups }}u + (piece{{ j }} - four{{ j }} * {{ chunks }}u + {{ p * split }}u) * {{ fields }}u / 8u;
  let scales{{ j }}_{{ p }} = {{ <two_words of="w2" first={scales} at={"group" ~ j ~ "_" ~ p} /> }};
{%- endfor %}
{%- endif %}
{%- endfor %}
{%- endcomponent slab_loads %}

{#- What it makes of that and of `hs`, added to `out` from `bank` on. `shuffled` threads of a split add up first.
    `quad0` and `turn` as they were for the loads. -#}
{% component slab_sums(wg: integer, split: integer, shuffled: integer, quads: integer, per: integer, mine: integer,
                       bits: integer, fields: integer, whole: integer, gathered: integer, floats: integer, quad0: string,
                       turn: string = "0u", bank: string = "0u") -%}
{%- if shuffled >= 4 %}
  let odd = (t & 1u) == 1u;
  let upper = (t & 2u) == 2u;
{%- endif %}
{%- for j in range(end=per) %}
{%- if floats == 1 %}
  var part{{ j }} = vec4<f32>();
{%- for p in range(end=mine) %}
  {
    var piece_ = vec4<f32>();
{%- for f in range(end=fields) %}
    {
      let at = (item{{ j }} % {{ split }}u + {{ p * split }}u) * {{ fields }}u + {{ f }}u;
      let h = hs[at];
{%- for word in ["x", "y", "z", "w"] %}
      let f{{ word }} = slab_field_{{ f }}(s{{ j }}_{{ p }}.{{ word }});
{%- endfor %}
      let high = vec4<i32>(dot4I8Packed(fx, h.x), dot4I8Packed(fy, h.x), dot4I8Packed(fz, h.x), dot4I8Packed(fw, h.x));
      let low = vec4<i32>(dot4I8Packed(fx, h.y), dot4I8Packed(fy, h.y), dot4I8Packed(fz, h.y), dot4I8Packed(fw, h.y));
      piece_ += vec4<f32>((high << vec4<u32>(8u)) + low) * hs_unit[at];
    }
{%- endfor %}
    part{{ j }} += piece_ * vec4<f32>(unpack2x16float(scales{{ j }}_{{ p }}.x), unpack2x16float(scales{{ j }}_{{ p }}.y));
  }
{%- endfor %}
{%- else %}
  var part{{ j }} = vec4<i32>();
{%- for p in range(end=mine) %}
{%- for f in range(end=fields) %}
  {
    let h = hs[(item{{ j }} % {{ split }}u + {{ p * split }}u) * {{ fields }}u + {{ f }}u];
    part{{ j }} += vec4<i32>(
      dot4I8Packed(slab_field_{{ f }}(s{{ j }}_{{ p }}.x), h), dot4I8Packed(slab_field_{{ f }}(s{{ j }}_{{ p }}.y), h),
      dot4I8Packed(slab_field_{{ f }}(s{{ j }}_{{ p }}.z), h), dot4I8Packed(slab_field_{{ f }}(s{{ j }}_{{ p }}.w), h));
  }
{%- endfor %}
{%- endfor %}
{%- if bits < 8 %}
  part{{ j }} = part{{ j }} >> vec4<u32>({{ 8 - bits }}u);
{%- endif %}
{%- endif %}
{%- if shuffled >= 4 %}
  // Each of four lanes ends up with one row's sum: half as many shuffles as whole sums in all lanes.
  let two{{ j }} = select(part{{ j }}.xz, part{{ j }}.yw, odd) + subgroupShuffleXor(select(part{{ j }}.yw, part{{ j }}.xz, odd), 1u);
  var one{{ j }} = select(two{{ j }}.x, two{{ j }}.y, upper) + subgroupShuffleXor(select(two{{ j }}.y, two{{ j }}.x, upper), 2u);
{%- for step in [4, 8, 16, 32] %}
{%- if step < shuffled %}
  one{{ j }} += subgroupShuffleXor(one{{ j }}, {{ step }}u);
{%- endif %}
{%- endfor %}
{%- elif shuffled > 1 %}
  part{{ j }} += subgroupShuffleXor(part{{ j }}, 1u);
{%- endif %}
{%- endfor %}
{%- if gathered == 1 %}
{%- for j in range(end=per) %}
  if ({% if shuffled > 1 %}t % {{ shuffled }}u == 0u{% else %}true{% endif %}{% if whole == 0 %} && item{{ j }} < {{ quads * split }}u{% endif %}) {
    slab_rows[item{{ j }} / {{ split }}u] = part{{ j }};
  }
{%- endfor %}
  workgroupBarrier();
  for (var i = t; i < {{ 4 * quads }}u; i += {{ wg }}u) {
    let turned = i / 4u + {{ turn }};
    let four = {{ quad0 }} + select(turned, turned - {{ quads }}u, turned >= {{ quads }}u);
    {{ <add_sum floats={floats} at={bank ~ " + 4u * four + i % 4u"} value="slab_rows[i / 4u][i % 4u]" /> }}
  }
{%- else %}
{%- for j in range(end=per) %}
{%- if shuffled >= 4 %}
  if (t % {{ shuffled }}u < 4u{% if whole == 0 %} && item{{ j }} < {{ quads * split }}u{% endif %}) {
    {{ <add_sum floats={floats} at={bank ~ " + 4u * four" ~ j ~ " + t % 4u"} value={"one" ~ j} /> }}
  }
{%- else %}
  if ({% if shuffled > 1 %}t % {{ shuffled }}u == 0u{% else %}true{% endif %}{% if whole == 0 %} && item{{ j }} < {{ quads * split }}u{% endif %}) {
    let row = {{ bank }} + 4u * four{{ j }};
    {{ <add_sum floats={floats} at="row" value={"part" ~ j ~ ".x"} /> }}
    {{ <add_sum floats={floats} at="row + 1u" value={"part" ~ j ~ ".y"} /> }}
    {{ <add_sum floats={floats} at="row + 2u" value={"part" ~ j ~ ".z"} /> }}
    {{ <add_sum floats={floats} at="row + 3u" value={"part" ~ j ~ ".w"} /> }}
  }
{%- endif %}
{%- endfor %}
{%- endif %}
{%- endcomponent slab_sums %}
