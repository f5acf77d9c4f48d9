"""The looks of a run's page, and of its card in a notebook: light or dark, as the reader has it."""

PAGE_CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #20242b; --muted: #626a76; --line: #e2e5e9; --card: #f6f7f9;
  --held-out: #0072b2; --clients: #d55e00;
  --t0: #0072b2; --t1: #56b4e9; --t2: #d55e00; --t3: #b9bfc8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181d; --ink: #e4e7eb; --muted: #98a1ad; --line: #2d333b; --card: #1d2127;
    --held-out: #56b4e9; --clients: #e98a3c;
    --t0: #3a9bd6; --t1: #8fcdf2; --t2: #e98a3c; --t3: #59626e;
  }
}
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 .8rem; font-size: 1.15rem; }
h3 { margin: 0 0 .3rem; font-size: .95rem; }
p { margin: .3rem 0 1rem; }
section { margin-top: 2.4rem; overflow-x: auto; }
.muted, footer { color: var(--muted); }
.note { border-left: 3px solid var(--clients); padding-left: .8rem; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr));
  gap: .8rem; margin: 1.4rem 0 0; }
.numbers div { background: var(--card); border-radius: 8px; padding: .8rem 1rem; }
.numbers dt { color: var(--muted); font-size: .85rem; }
.numbers dd { margin: 0; font-size: 1.35rem; font-weight: 600; line-height: 1.4;
  white-space: nowrap;  font-variant-numeric: tabular-nums; }
.numbers dd.muted { font-size: .8rem; font-weight: 400; white-space: normal; }
figure { margin: 0 0 1.6rem; }
figure svg { width: 100%; }
figure svg text { font-family: inherit !important; }
figcaption { font-size: .85rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1.2rem 3.5rem; align-items: start; }
.scores { align-items: end; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; max-width: 100%; }
th, td { padding: .28rem 1.2rem .28rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: break-word; }
td:first-child { max-width: 24rem; }
.wide td:first-child { max-width: 48rem; }
table + h3 { margin-top: 1.4rem; }
thead th { color: var(--muted); font-weight: 500; font-size: .85rem; vertical-align: bottom; }
.figures td + td, .figures th + th { text-align: right; padding: .28rem 0 .28rem 1.4rem;
  white-space: nowrap; }
.listed td:last-child { overflow-wrap: anywhere; }
.listed td:first-child { color: var(--muted); white-space: nowrap; }
.bar { display: flex; height: 1rem; border-radius: 4px; overflow: hidden; margin-bottom: .6rem; }
.bar i { display: block; }
.time i { display: inline-block; width: .75rem; height: .75rem; border-radius: 2px;
  margin-right: .6rem; }
.t0 { background: var(--t0); } .t1 { background: var(--t1); }
.t2 { background: var(--t2); } .t3 { background: var(--t3); }
footer { margin-top: 3rem; font-size: .85rem; }
@media print { section { break-inside: avoid; } }
"""

CARD_CSS = """
.folkmoot-result { --held-out: #2a8ac9; --clients: #e0701a; --paper: transparent;
  max-width: 46rem; font-variant-numeric: tabular-nums; }
.folkmoot-result p { margin: 0 0 .6rem; }
.folkmoot-result .pair { display: flex; flex-wrap: wrap; gap: .6rem 2.5rem; align-items: end; }
.folkmoot-result table { margin: .4rem 0; border-collapse: collapse; background: none; }
.folkmoot-result th { font-weight: 500; opacity: .75; }
.folkmoot-result th, .folkmoot-result td { background: none; text-align: left; }
.folkmoot-result .figures td + td, .folkmoot-result .figures th + th { text-align: right;
  padding-left: 1.4rem; }
"""
