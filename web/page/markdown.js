// Markdown as models write it, to DOM nodes: never through HTML text, so nothing an answer holds can
// become a script. What is not finished yet (an open fence, half a table) shows as what it will be.

const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*([^\s*](?:.*?[^\s*])?)\*|\[([^\]]+)\]\((https?:\/\/[^\s)]+)\)/;

function make(name, ...children) {
  const node = document.createElement(name);
  node.append(...children);
  return node;
}

function inline(text) {
  const nodes = [];
  for (let match; (match = INLINE.exec(text)); text = text.slice(match.index + match[0].length)) {
    if (match.index) nodes.push(text.slice(0, match.index));
    const [, , code, strong, strong2, em, label, url] = match;
    if (code !== undefined) nodes.push(make("code", code));
    else if (strong ?? strong2) nodes.push(make("strong", ...inline(strong ?? strong2)));
    else if (em) nodes.push(make("em", ...inline(em)));
    else nodes.push(Object.assign(make("a", ...inline(label)), { href: url, rel: "noopener noreferrer", target: "_blank" }));
  }
  if (text) nodes.push(text);
  return nodes;
}

/** Lines of a paragraph, breaks kept. */
function lines(all) {
  return all.flatMap((line, i) => (i ? [make("br"), ...inline(line)] : inline(line)));
}

const ITEM = /^(\s*)([-*+]|\d+[.)])\s+(.*)$/;
const HEADING = /^(#{1,6})\s+(.*?)#*$/;
const FENCE = /^\s*(```+|~~~+)\s*([\w+-]*)\s*$/;
const ROW = /^\s*\|(.*)\|\s*$/;

function begins(line) {
  return [ITEM, HEADING, FENCE, ROW, /^>/, /^\s*([-*_])(\s*\1){2,}\s*$/].some((pattern) => pattern.test(line));
}

function list(all, at, indent) {
  const ordered = /\d/.test(ITEM.exec(all[at])[2]);
  const node = make(ordered ? "ol" : "ul");
  if (ordered) node.start = parseInt(ITEM.exec(all[at])[2], 10);
  while (at < all.length) {
    const match = ITEM.exec(all[at]);
    if (match && match[1].length >= indent + 2 && node.lastChild) {
      let inner;
      [inner, at] = list(all, at, match[1].length);
      node.lastChild.append(inner);
    } else if (match && match[1].length >= indent) {
      node.append(make("li", ...inline(match[3])));
      at++;
    } else if (!match && /^\s+\S/.test(all[at]) && node.lastChild) {
      node.lastChild.append(" ", ...inline(all[at].trim()));
      at++;
    } else if (all[at].trim() === "" && at + 1 < all.length && ITEM.test(all[at + 1])) {
      at++;
    } else {
      break;
    }
  }
  return [node, at];
}

function table(all, at) {
  const cells = (line) => ROW.exec(line)[1].split("|").map((cell) => cell.trim());
  const node = make("table");
  for (let first = true; at < all.length && ROW.test(all[at]); at++, first = false) {
    const row = cells(all[at]);
    if (row.every((cell) => /^:?-+:?$/.test(cell))) continue;
    node.append(make("tr", ...row.map((cell) => make(first ? "th" : "td", ...inline(cell)))));
  }
  return [node, at];
}

/** The nodes of a text. */
export function markdown(text, depth = 0) {
  const all = text.split("\n");
  const nodes = [];
  for (let at = 0; at < all.length; ) {
    const line = all[at];
    let match;
    if (line.trim() === "") {
      at++;
    } else if ((match = FENCE.exec(line))) {
      const end = all.findIndex((other, i) => i > at && other.trim().startsWith(match[1]));
      nodes.push(make("pre", make("code", all.slice(at + 1, end < 0 ? undefined : end).join("\n"))));
      at = end < 0 ? all.length : end + 1;
    } else if ((match = HEADING.exec(line))) {
      // Below the page's own headings.
      nodes.push(make(`h${Math.min(match[1].length + 2, 6)}`, ...inline(match[2])));
      at++;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      nodes.push(make("hr"));
      at++;
    } else if (ITEM.test(line)) {
      let node;
      [node, at] = list(all, at, ITEM.exec(line)[1].length);
      nodes.push(node);
    } else if (ROW.test(line)) {
      let node;
      [node, at] = table(all, at);
      nodes.push(node);
    } else if (line.startsWith(">") && depth < 8) {
      const start = at;
      while (at < all.length && all[at].startsWith(">")) at++;
      nodes.push(make("blockquote", ...markdown(all.slice(start, at).map((l) => l.replace(/^> ?/, "")).join("\n"), depth + 1)));
    } else {
      const start = at++;
      while (at < all.length && all[at].trim() !== "" && !begins(all[at])) at++;
      nodes.push(make("p", ...lines(all.slice(start, at))));
    }
  }
  return nodes;
}
