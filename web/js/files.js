// Files as the engine reads them: `{ name, size, read(offset, into), has(start, end) }`, at once and
// at any place. Workers may: what is kept, dropped on a page or cached is a Blob, and a
// FileReaderSync reads slices of it from disk.

/** A file in one or more pieces, each a Blob at its place; what lies between is not there. */
export class BlobFile {
  /**
   * @param {string} name
   * @param {number} size bytes of the whole file
   * @param {{ start: number, blob: Blob }[]} pieces in order, none overlapping
   */
  constructor(name, size, pieces) {
    this.name = name;
    this.size = size;
    this.pieces = pieces;
    this.reader = new FileReaderSync();
  }

  /** A file dropped on the page. */
  static of(file) {
    return new BlobFile(file.name, file.size, [{ start: 0, blob: file }]);
  }

  /** The piece that holds a byte, or undefined. */
  at(offset) {
    let [low, high] = [0, this.pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.pieces[middle].start <= offset) low = middle + 1;
      else high = middle;
    }
    const piece = this.pieces[low - 1];
    return piece && offset < piece.start + piece.blob.size ? piece : undefined;
  }

  read(offset, into) {
    for (let done = 0; done < into.length; ) {
      const piece = this.at(offset + done);
      if (!piece) throw new Error(`${this.name}: byte ${offset + done} was not fetched; load the model again`);
      const from = offset + done - piece.start;
      const count = Math.min(into.length - done, piece.blob.size - from);
      let bytes;
      try {
        bytes = this.reader.readAsArrayBuffer(piece.blob.slice(from, from + count));
      } catch (error) {
        throw new Error(`${this.name} can no longer be read (${error.message}); the browser or another program removed it. Load the model again`);
      }
      into.set(new Uint8Array(bytes), done);
      done += count;
    }
  }

  has(start, end) {
    for (let at = start; at < end; ) {
      const piece = this.at(at);
      if (!piece) return false;
      at = piece.start + piece.blob.size;
    }
    return true;
  }
}

/** A file behind a URL, read by ranges: for browsers that keep nothing. Every load fetches anew. */
export class UrlFile {
  constructor(name, size, url) {
    this.name = name;
    this.size = size;
    this.url = url;
  }

  read(offset, into) {
    const request = new XMLHttpRequest();
    request.open("GET", this.url, false);
    request.responseType = "arraybuffer";
    request.setRequestHeader("Range", `bytes=${offset}-${offset + into.length - 1}`);
    request.send();
    if (request.status !== 206 || request.response.byteLength !== into.length) {
      throw new Error(`${this.url}: the server answered ${request.status} to a range; check the connection and load again`);
    }
    into.set(new Uint8Array(request.response));
  }

  has() {
    return true;
  }
}
