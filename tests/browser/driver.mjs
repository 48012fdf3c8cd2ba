// A browser at the end of a pipe: a command a line on standard input, its answer a line on standard output. What a test
// does with it is the test's business; see tests/src/browser.rs.
//
//     node driver.mjs CHROMIUM NODE_MODULES

import fs from "node:fs";
import { createRequire } from "node:module";
import readline from "node:readline";

const [, , chromium, modules] = process.argv;
const require = createRequire(`${modules}/`);
const AXE = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const LIMIT = { timeout: 20000 };
// As root, without a display, and asking nobody but the server under test.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const browser = await require("playwright-core").chromium.launch({ executablePath: chromium, args: FLAGS });
let context;
let page;
let said = [];
let asked = [];

const does = {
  /** Opens a page as someone with this window and this taste. */
  async open({ url, width, height, scheme }) {
    await context?.close();
    context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, locale: "en-GB", timezoneId: "UTC" });
    page = await context.newPage();
    page.on("console", (message) => said.push(`${message.type()}: ${message.text()}`));
    page.on("pageerror", (error) => said.push(`error: ${error.message}`));
    page.on("request", (request) => asked.push(request.url()));
    await page.goto(url, LIMIT);
  },
  /** What is written there, once this is part of it. */
  async sees({ at, text }) {
    const place = page.locator(at);
    await place.filter({ hasText: text }).first().waitFor(LIMIT).catch(async () => {
      throw new Error(`${at} never says '${text}', but '${await place.first().innerText({ timeout: 1000 }).catch(() => "nothing")}'`);
    });
    return place.first().innerText();
  },
  /** Waits until it is not there any more. */
  async misses({ at, text }) {
    await page.locator(at).filter({ hasText: text, visible: true }).first().waitFor({ ...LIMIT, state: "hidden" });
  },
  async read({ at }) {
    return page.locator(at).allInnerTexts();
  },
  async press({ keys }) {
    for (const key of keys) await page.keyboard.press(key);
  },
  async type({ text }) {
    await page.keyboard.type(text);
  },
  /** What has the keyboard: its name for who does not see, or its text. */
  async focused() {
    return page.evaluate(() => {
      const element = document.activeElement;
      return [element.tagName.toLowerCase(), element.getAttribute("aria-label") ?? element.value ?? element.textContent.trim()].join(" ");
    });
  },
  /** How much of each picture is painted, as a share of its dots. */
  async painted({ at }) {
    return page.locator(at).evaluateAll((pictures) => pictures.map((picture) => {
      const dots = picture.getContext("2d").getImageData(0, 0, picture.width, picture.height).data;
      let painted = 0;
      for (let dot = 3; dot < dots.length; dot += 4) painted += dots[dot] > 0 ? 1 : 0;
      return painted / (dots.length / 4);
    }));
  },
  async colour({ at }) {
    return page.locator(at).first().evaluate((element) => getComputedStyle(element).backgroundColor);
  },
  /** By how many dots the page is wider than the window. */
  async overflow() {
    return page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  },
  async shot({ path }) {
    await page.screenshot({ path, fullPage: true, animations: "disabled" });
  },
  /** What axe finds, each with its weight. */
  async axe() {
    await page.evaluate(AXE);
    const found = await page.evaluate(() => globalThis.axe.run());
    const node = ({ html, failureSummary }) => `${html}: ${failureSummary}`;
    return found.violations.map(({ impact, id, nodes }) => ({ impact, what: `${id}: ${nodes.map(node).join("\n")}` }));
  },
  /** What the page said on the console, and which hosts it asked, since this was asked last. */
  async told() {
    const told = { said, hosts: [...new Set(asked.map((url) => new URL(url).host))] };
    [said, asked] = [[], []];
    return told;
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { command, ...how } = JSON.parse(line);
  const answer = await does[command](how).then((ok) => ({ ok: ok ?? null }), (error) => ({ error: error.message }));
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await browser.close();
