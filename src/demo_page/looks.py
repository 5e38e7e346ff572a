"""How the page looks, on a phone and on a desktop, light and dark. Only fonts that the visitor's machine has."""

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")

# gradio's own quiet grey has a contrast of 2.6 to white; WCAG 2.2 asks for 4.5.
CSS = """
:root { --quiet: #4b5768; }
.dark { --quiet: #aab5c5; }
.gradio-container { width: 100% !important; max-width: 1060px !important; margin: 0 auto !important; }
.gradio-container main { width: 100%; max-width: 100%; }
.about h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .35rem; overflow-wrap: anywhere; }
.about ul { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; list-style: none; margin: 0; padding: 0;
  color: var(--quiet); font-size: .92rem; }
.about li { overflow-wrap: anywhere; }
.answer { display: grid; grid-template-columns: minmax(0, 1fr) 144px; gap: .9rem 1.2rem; align-items: start; }
.answer .labels, .answer ol { margin: 0; padding: 0; list-style: none; }
.answer li { display: grid; grid-template-columns: minmax(0, 1fr) auto; gap: .15rem .8rem; margin: 0 0 .6rem; }
.answer .label { font-weight: 600; overflow-wrap: break-word; hyphens: auto; min-width: 0; }
.answer li:not(:first-child) .label { font-weight: 400; }
.answer .share { font-variant-numeric: tabular-nums; }
.answer .bar { grid-column: 1 / -1; height: .6rem; border-radius: .3rem; overflow: hidden;
  background: var(--border-color-primary); }
.answer .bar span { display: block; height: 100%; min-width: 2px; border-radius: .3rem; background: var(--color-accent); }
.answer figure { margin: 0; }
.answer figure img { width: 100%; height: auto; border-radius: .4rem; display: block; margin: 0; }
.answer figure.small img { image-rendering: pixelated; }
.answer figcaption { font-size: .8rem; color: var(--quiet); margin-top: .3rem; }
.answer .facts { grid-column: 1 / -1; font-size: .88rem; color: var(--quiet); }
.answer .facts p { margin: 0 0 .25rem; }
.answer.waiting, .answer.refused { display: block; padding: .9rem 1rem; border-radius: .5rem; }
.answer.waiting { color: var(--quiet); border: 1px dashed var(--border-color-primary); }
.answer.refused { border: 1px solid #dc2626; border-left-width: .35rem; background: var(--error-background-fill);
  color: var(--body-text-color); overflow-wrap: anywhere; }
.answer.refused p, .answer.waiting p { margin: 0; }
#image button { min-width: 44px; min-height: 44px; }
#examples button, #examples button > div { width: 76px !important; height: 76px !important; min-width: 0 !important; }
#examples button, #examples button * { border-radius: .4rem; }
#examples button img { width: 100% !important; height: 100% !important; object-fit: cover; }
@media (max-width: 640px) {
  .about h1 { font-size: 1.25rem; }
  .about ul { font-size: .84rem; gap: 0 .9rem; }
  .answer { grid-template-columns: minmax(0, 1fr) 104px; gap: .7rem .9rem; }
}
"""

# A new answer is read out, examples have names, and a picture pasted anywhere is taken like a chosen file: its bytes as they are.
SCRIPT = """
new MutationObserver(() => {
  document.querySelector("#answer:not([aria-live])")?.setAttribute("aria-live", "polite");
  document.querySelectorAll("#examples button:not([aria-label])").forEach((button) => {
    button.setAttribute("aria-label", `Example ${[...button.parentElement.querySelectorAll("button")].indexOf(button) + 1}`);
  });
}).observe(document.body, { childList: true, subtree: true });
document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
  const input = document.querySelector("#image input[type=file]");
  if (!files.length || !input) return;
  event.preventDefault();
  const transfer = new DataTransfer();
  transfer.items.add(files[0]);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
"""
SHOW_ANSWER = "() => document.querySelector('#answer')?.scrollIntoView({ behavior: 'smooth', block: 'nearest' })"
