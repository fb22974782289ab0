// A static server that answers ranges, for trying and for tests: `node server.mjs FOLDER [PORT]`.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

const TYPES = {
  ".css": "text/css",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".json": "application/json",
  ".mjs": "text/javascript",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
  ".webmanifest": "application/manifest+json",
};

/**
 * Serves folders by their first path segment, `""` for the rest. `before(request, response)` may
 * answer in the server's place by returning true.
 */
export async function serve(folders, { port = 0, before } = {}) {
  const server = createServer(async (request, response) => {
    try {
      if (before && (await before(request, response))) return;
      const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
      const first = path.split("/")[1];
      const [root, rest] = first && folders[first] ? [folders[first], path.slice(first.length + 1)] : [folders[""], path];
      // `normalize` of an absolute path cannot climb above it.
      let file = join(root ?? "/nonexistent", normalize(rest));
      if (file.endsWith("/")) file += "index.html";
      const { size } = await stat(file);
      const headers = { "Content-Type": TYPES[extname(file)] ?? "application/octet-stream", "Accept-Ranges": "bytes", "Cache-Control": "no-cache" };
      const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
      if (match) {
        const start = Number(match[1]);
        const end = Math.min(match[2] ? Number(match[2]) : size - 1, size - 1);
        if (start > end) return response.writeHead(416, { "Content-Range": `bytes */${size}` }).end();
        response.writeHead(206, { ...headers, "Content-Length": end - start + 1, "Content-Range": `bytes ${start}-${end}/${size}`, ETag: `"${size}"` });
        createReadStream(file, { start, end }).pipe(response);
      } else {
        response.writeHead(200, { ...headers, "Content-Length": size });
        createReadStream(file).pipe(response);
      }
    } catch (error) {
      response.writeHead(error.code === "ENOENT" ? 404 : 500).end();
    }
  });
  await new Promise((resolve) => server.listen(port, resolve));
  return { server, url: `http://localhost:${server.address().port}/` };
}

if (import.meta.url === `file://${process.argv[1]}`) {
  const { url } = await serve({ "": process.argv[2] ?? "." }, { port: Number(process.argv[3] ?? 8080) });
  console.log(url);
}
