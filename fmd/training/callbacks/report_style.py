"""How report.html looks: light or dark as the reader's system is, one column on a telephone."""

STYLE = """
:root { color-scheme: light dark;
  --ground: #f6f6f3; --card: #fff; --ink: #1d2126; --muted: #6b727b; --line: #e3e4e0; --accent: #2f62c9;
  --s0: #3f63c8; --s1: #2f86c9; --s2: #1f9cae; --s3: #2ba37c; --s4: #6aa544; --s5: #b29a22;
  --s6: #d67f2b; --s7: #cf5340; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #14161a; --card: #1d2026; --ink: #e6e8eb; --muted: #969da7; --line: #32363e; --accent: #86aaf5;
  --s0: #7d9bf2; --s1: #5cb0ee; --s2: #45c2cf; --s3: #4fc79b; --s4: #93cc66; --s5: #d8c14d;
  --s6: #f0a45a; --s7: #ee7d69; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1320px; padding: 2rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 2.4rem 0 .8rem; font-size: 1.1rem; }
h3 { margin: 0 0 .3rem; font-size: .8rem; color: var(--muted); font-weight: 600; }
header p { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem; margin: .2rem 0 .5rem;
  color: var(--muted); }
header p:last-of-type { margin-bottom: 1.2rem; }
header b { color: var(--ink); }
progress { display: block; width: 100%; height: .55rem; margin-bottom: .5rem; accent-color: var(--accent); }
figure { margin: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .75rem; }
.tiles div, .chart, .block, .grids figure {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.tiles div { padding: .7rem .9rem; color: var(--muted); font-size: .85rem; }
.tiles small { display: block; }
.tiles b { display: block; color: var(--ink); font-size: 1.45rem; font-weight: 600; line-height: 1.25; }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(360px, 100%), 1fr)); gap: .75rem; }
.grids figure { padding: .5rem; }
.grids img { display: block; width: 100%; max-height: 90vh; object-fit: contain; border-radius: 4px; background: #fff; }
.grids figcaption { padding-top: .4rem; text-align: center; color: var(--muted); font-size: .85rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(340px, 100%), 1fr)); gap: .75rem; }
.chart { padding: .7rem .8rem .5rem; }
.chart figcaption { font-weight: 600; font-size: .9rem; padding-bottom: .3rem; }
.chart figcaption b { float: right; color: var(--accent); }
.chart small { color: var(--muted); font-weight: 400; padding-left: .3rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 11.5px; font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); stroke-width: 1; }
circle { fill: var(--card); stroke-width: 1.7; }
.line { fill: none; stroke-width: 1.7; stroke-linejoin: round; stroke-linecap: round; }
.s0 { stroke: var(--s0); background: var(--s0); } .s1 { stroke: var(--s1); background: var(--s1); }
.s2 { stroke: var(--s2); background: var(--s2); } .s3 { stroke: var(--s3); background: var(--s3); }
.s4 { stroke: var(--s4); background: var(--s4); } .s5 { stroke: var(--s5); background: var(--s5); }
.s6 { stroke: var(--s6); background: var(--s6); } .s7 { stroke: var(--s7); background: var(--s7); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem .9rem; color: var(--muted); font-size: .8rem; padding-top: .3rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; border-radius: 2px; margin-right: .35rem; }
.bar { display: flex; height: 1.1rem; gap: 2px; border-radius: 5px; overflow: hidden; margin-bottom: .3rem; }
.blocks { columns: 330px; column-gap: .75rem; }
.block { break-inside: avoid; padding: .7rem .9rem; margin-bottom: .75rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem; }
th { text-align: left; font-weight: 400; color: var(--muted); padding: .1rem .8rem .1rem 0; white-space: nowrap;
  vertical-align: top; }
td { padding: .1rem 0; overflow-wrap: anywhere; vertical-align: top; }
td + td { color: var(--muted); text-align: right; padding-left: .8rem; }
.changed th, .changed td:nth-child(2) { color: var(--accent); font-weight: 600; }
summary { cursor: pointer; margin-top: .8rem; color: var(--muted); }
pre { overflow-x: auto; font-size: .75rem; }
"""
