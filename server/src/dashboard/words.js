// How numbers are said.

const counts = new Intl.NumberFormat();
const three = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 3 });
const BYTES = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const count = (number) => counts.format(number);

export function bytes(number) {
  let unit = 0;
  while (number >= 1000 && unit < BYTES.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${three.format(number)} ${BYTES[unit]}`;
}

/** A duration in milliseconds, in its two largest units. */
export function duration(ms) {
  if (ms === 0) return "0 s";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.round(seconds);
  const said = [];
  for (const [unit, length] of parts) {
    const whole = Math.floor(left / length);
    left -= whole * length;
    if (whole > 0 || said.length > 0) said.push(whole > 0 ? `${whole} ${unit}` : "");
    if (said.length === 2) break;
  }
  return said.filter(Boolean).join(" ");
}

export function ago(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds < 5) return "just now";
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const [unit, length] = units.find(([, length]) => seconds >= length);
  return `${Math.floor(seconds / length)} ${unit} ago`;
}

/** How many of a hundred were hits; null where nobody asked. */
export const rate = (hits, misses) => (hits + misses > 0 ? (100 * hits) / (hits + misses) : null);

export function percent(number) {
  if (number === null) return "–";
  // A rate that is not whole must not look as if it were.
  const digits = number > 99 && number < 100 ? 2 : number < 10 ? 1 : 0;
  return `${Math.min(number, number < 100 ? 99.99 : 100).toFixed(digits)} %`;
}

export const many = (number, one, more) => `${count(number)} ${number === 1 ? one : more}`;

/** A path's last part, and what stands before it. */
export function path(subject) {
  const scan = subject.startsWith("scan ") ? "scan of " : "";
  const whole = scan ? subject.slice(5) : subject;
  const cut = whole.lastIndexOf("/");
  return { name: scan + whole.slice(cut + 1), directory: cut < 0 ? "" : whole.slice(0, cut) };
}
