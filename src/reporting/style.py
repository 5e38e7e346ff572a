"""The page's style sheet: light and dark by the reader's setting, narrow and wide, on screen and on paper. It loads nothing."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b1f24; --soft: #57606a; --line: #d0d7de; --grid: #b8bec6;
  --box: #f6f8fa; --alert: #9a3b00; --alert-box: #fff4ec; --yes: #0b6b3a; --no: #57606a;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #aa3377; --c4: #e69f00; --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e6e9ee; --soft: #a3abb5; --line: #363c44; --grid: #4d545d;
  --box: #1c2026; --alert: #ffb48a; --alert-box: #33231a; --yes: #63d297; --no: #a3abb5;
  --c0: #4aa8e0; --c1: #ff8a4c; --c2: #2bc89a; --c3: #e07bb5; --c4: #f2b84b; --c5: #8ccbf2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem clamp(0.8rem, 3vw, 2.4rem) 3rem; max-width: 84rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.4rem 0; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; padding-bottom: 0.25rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.2rem 0 0.4rem; }
h1, h2, h3, p, li, summary, figcaption { overflow-wrap: anywhere; }
p { margin: 0.4rem 0; }
.soft, figcaption, .note { color: var(--soft); font-size: 0.9rem; }
.alert { border-left: 4px solid var(--alert); background: var(--alert-box); padding: 0.6rem 1rem; margin: 1rem 0; }
.alert ul, .answer ul { margin: 0.3rem 0; padding-left: 1.2rem; }
.alert strong { color: var(--alert); }
.answer { border: 1px solid var(--line); border-left-width: 4px; background: var(--box); padding: 0.7rem 1rem; margin: 0.8rem 0; }
.answer .verdict { font-weight: 700; color: var(--no); margin: 0; font-size: 0.85rem;
  letter-spacing: 0.03em; text-transform: uppercase; }
.answer.yes { border-left-color: var(--yes); } .answer.yes .verdict { color: var(--yes); }
.answer.refused { border-left-color: var(--alert); } .answer.refused .verdict { color: var(--alert); }
.answer h3 { margin: 0.2rem 0 0.4rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr));
  gap: 1.4rem 2rem; align-items: start; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
.scroll { overflow-x: auto; max-width: 100%; border: 1px solid var(--line); border-radius: 6px; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
table { border-collapse: collapse; width: max-content; min-width: 100%; font-size: 0.88rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.7rem; text-align: right; white-space: nowrap; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { background: var(--box); font-weight: 600; }
thead th { vertical-align: bottom; }
tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
.words { text-align: left; }
td.words, th.words { white-space: normal; max-width: 24rem; overflow-wrap: break-word; }
tbody th { background: none; font-weight: 600; }
details { margin: 0.5rem 0; } summary { cursor: pointer; padding: 0.3rem 0; }
code { font: 0.88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --soft: #444; --line: #bbb; --grid: #bbb; --box: #fff;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #aa3377; --c4: #e69f00; --c5: #56b4e9; }
  body { max-width: none; padding: 0; font-size: 10pt; } .figures { grid-template-columns: 1fr 1fr; } table { font-size: 7.5pt; }
  th, td { padding: 0.15rem 0.3rem; white-space: normal; } table { width: auto; }
  .scroll { overflow: visible; border: 0; }
  tr, .answer { break-inside: avoid; } h2, h3, summary { break-after: avoid; }
  details::details-content { content-visibility: visible; block-size: auto; } }
"""
