"""The page at `/` in headless Chromium: a completion, a race, the keyboard, both widths, and nothing from elsewhere."""

import base64
import json
import shutil
import sys
import unittest
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

import served

WIDTHS = (1280, 400)
# seconds for the slowest step of a test
PATIENCE = 60
KEY = "a-key-of-the-page's-test"


def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


class Page(unittest.TestCase):
    """Tests of a server of both models."""

    server = checkpoints = binary = pictures = driver = None

    def open(self, server=None, width=WIDTHS[0], scheme="light"):
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", dict(width=width, height=900, deviceScaleFactor=1, mobile=False)
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(f"{(server or self.server).url}/")
        self.wait(lambda: self.find("loaded").is_displayed() or self.find("key-form").is_displayed())

    def find(self, name):
        return self.driver.find_element(By.ID, name)

    def wait(self, condition):
        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: condition())

    def fill(self, **fields):
        for name, value in fields.items():
            field = self.find(name.replace("_", "-"))
            field.clear()
            field.send_keys(str(value))

    def idle(self, form):
        return not self.find(f"{form}-stop").is_enabled()

    def click(self, name):
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(name))
        self.find(name).click()

    def numbers(self):
        """The numbers of both lanes of the race, by their labels."""
        lanes = []
        for lane in self.driver.find_elements(By.CLASS_NAME, "lane"):
            names = [name.text for name in lane.find_elements(By.TAG_NAME, "dt")]
            values = [value.text for value in lane.find_elements(By.TAG_NAME, "dd")]
            rate = float(lane.find_element(By.TAG_NAME, "b").text.replace(",", ""))
            lanes.append({"rate": rate, **dict(zip(names, values, strict=True))})
        return lanes

    def race(self, sequences=3, new=400):
        self.fill(count=sequences, prompt_tokens=20, new_tokens=new)
        self.click("race-start")

    def assert_clean(self, errors=()):
        """No error in the console other than these statuses, and no request to another place."""
        lines = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
        unexpected = [line for line in lines if not any(f"status of {status}" in line for status in errors)]
        self.assertEqual(unexpected, [])
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        self.assertTrue(urls)
        own = (f"http://127.0.0.1:", "data:,")
        self.assertEqual([url for url in urls if not url.startswith(own)], [])

    def picture(self, name):
        """Keeps a picture of the whole page if a folder was given."""
        if self.pictures is None:
            return
        size = self.driver.execute_script("return [document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = dict(x=0, y=0, width=size[0], height=size[1], scale=1)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", dict(captureBeyondViewport=True, clip=clip))
        (self.pictures / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def test_a_completion_streams_and_is_the_same_with_the_same_seed(self):
        self.open()
        texts = []
        for _ in range(2):
            self.fill(prompt="The engine", max_tokens=40, seed=5)
            self.click("complete-start")
            self.wait(lambda: self.idle("complete") and "tokens/s" in self.find("complete-status").text)
            texts.append(self.find("text").get_attribute("textContent"))
        self.assertTrue(texts[0].startswith("The engine") and len(texts[0]) > 40, texts)
        self.assertEqual(*texts)
        self.assertRegex(self.find("complete-status").text, r"^\d+ tokens, the first after (\d+ ms|\d+\.\d\d s), then [\d.,]+ tokens/s, ")
        # a stop string
        self.fill(stop=texts[0][30:33])
        self.click("complete-start")
        self.wait(lambda: self.idle("complete") and "end of the text" in self.find("complete-status").text)
        self.assertEqual(self.find("text").get_attribute("textContent"), texts[0][: texts[0].index(texts[0][30:33], 10)])
        self.assert_clean()

    def test_an_error_is_shown_and_a_stop_frees_the_slot(self):
        self.open()
        self.fill(max_tokens=100000)
        self.click("complete-start")
        self.wait(lambda: "tokens" in self.find("complete-error").text)
        self.fill(max_tokens=1900)
        self.click("complete-start")
        prompt = self.find("prompt").get_attribute("value")
        self.wait(lambda: len(self.find("text").get_attribute("textContent")) > len(prompt))
        self.click("complete-stop")
        self.wait(lambda: self.idle("complete"))
        served.until(lambda: self.server.metric("vllm:num_requests_running") == 0, 5, "the slot must be free")
        self.assertEqual(self.find("complete-error").text, "")
        self.assert_clean(errors=[400])

    def test_a_race_shows_its_numbers(self):
        for order in ("together", "turns"):
            self.open()
            self.driver.execute_script(f"document.getElementById('order').value = '{order}'")
            self.race()
            self.wait(lambda: self.idle("race"))
            self.assertEqual(self.find("race-error").text, "")
            for lane in self.numbers():
                self.assertGreater(lane["rate"], 0)
                self.assertEqual((lane["New tokens"], lane["Finished"]), ("1,200", "3 of 3"))
                self.assertRegex(lane["Time"], r"^(\d+ ms|\d+\.\d\d s)$")
                self.assertRegex(lane["First token, median"], r"^(\d+ ms|\d+\.\d\d s)$")
                self.assertRegex(lane["Memory per sequence"], r"^[\d.,]+ (kB|MB)$")
            self.assertRegex(self.find("result").text, r"wrote [\d.,]+ times as many tokens per second as .* times less memory")
            self.assertEqual(len(self.driver.find_elements(By.CSS_SELECTOR, ".texts li.done")), 6)
            self.assert_clean()

    def test_a_race_can_be_stopped(self):
        self.open()
        self.race(sequences=16, new=1500)
        self.wait(lambda: len(self.numbers()) == 2 and all(lane["rate"] > 0 for lane in self.numbers()))
        self.find("race-stop").send_keys(Keys.ENTER)
        self.wait(lambda: self.idle("race"))
        self.assertEqual(self.find("result").text, "Stopped.")
        # the keyboard stays in the form
        self.assertEqual(self.driver.switch_to.active_element.get_attribute("id"), "race-start")
        served.until(lambda: self.server.metric("vllm:num_requests_running") == 0, 5, "the slots must be free")
        self.assert_clean()

    def test_the_keyboard_reaches_everything_in_order(self):
        self.open()
        self.driver.execute_script("document.activeElement.blur()")
        order = []
        for _ in range(40):
            webdriver.ActionChains(self.driver).send_keys(Keys.TAB).perform()
            element = self.driver.switch_to.active_element
            if element.tag_name == "body":
                break
            order.append(element.get_attribute("id") or element.text or element.tag_name)
            outline = element.value_of_css_property("outline-style"), element.value_of_css_property("outline-width")
            self.assertEqual(outline, ("solid", "3px"), f"{order[-1]} shows the focus")
        expected = ["prompt", "model", "max-tokens", "temperature", "seed", "stop", "complete-start"]
        expected += ["Prompts", "first-model", "second-model", "count", "prompt-tokens", "new-tokens", "order", "race-start"]
        self.assertEqual(order[: len(expected)], expected)
        self.find("prompt").send_keys(Keys.CONTROL, Keys.ENTER)
        self.wait(lambda: "tokens" in self.find("complete-status").text)
        unnamed = self.driver.execute_script(
            "return [...document.querySelectorAll('input, select, textarea')].filter(field => !field.labels.length).map(field => field.id)"
        )
        self.assertEqual(unnamed, [])

    def test_both_widths_fit(self):
        for width in WIDTHS:
            for scheme in ("light", "dark"):
                self.open(width=width, scheme=scheme)
                self.picture(f"idle-{width}-{scheme}")
                self.click("complete-start")
                self.race(sequences=16, new=1900)
                self.wait(lambda: len(self.numbers()) == 2 and all(lane["rate"] > 0 for lane in self.numbers()))
                self.picture(f"running-{width}-{scheme}")
                wide = self.driver.execute_script("return document.documentElement.scrollWidth")
                self.assertLessEqual(wide, width)
                # it was running when the picture was taken
                self.assertFalse(self.idle("race"))
                self.click("race-stop")
                self.wait(lambda: self.idle("race"))
                self.race(sequences=16, new=100)
                self.wait(lambda: self.idle("race") and "times" in self.find("result").text)
                self.picture(f"finished-{width}-{scheme}")
                self.assertLessEqual(self.driver.execute_script("return document.documentElement.scrollWidth"), width)
                self.assert_clean()

    def test_a_server_with_a_key_and_one_model(self):
        with served.Server(self.binary, {"block": self.checkpoints["block"]}, env={served.KEY: KEY}) as server:
            self.open(server)
            self.assertFalse(self.find("loaded").is_displayed())
            self.fill(key="wrong")
            self.find("key").send_keys(Keys.ENTER)
            self.wait(lambda: "key" in self.find("unreachable").text)
            self.picture("key")
            self.fill(key=KEY)
            self.find("key").send_keys(Keys.ENTER)
            self.wait(lambda: self.find("loaded").is_displayed())
            self.assertIn("serve --checkpoint", self.find("race-alone").text)
            self.assertFalse(self.find("race-body").is_displayed())
            self.fill(max_tokens=8)
            self.click("complete-start")
            self.wait(lambda: self.idle("complete") and "tokens" in self.find("complete-status").text)
            self.picture("one-model")
            self.assert_clean(errors=[401])


def main():
    arguments = served.parser(__doc__)
    arguments.add_argument("--pictures", type=Path, help="folder for pictures of the page")
    options = arguments.parse_args()
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        print("skipped: there is no chromium with chromedriver; tests/server/setup.sh installs them")
        return
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with served.checkpoints(options) as checkpoints, served.Server(options.binary, checkpoints) as server:
        Page.server, Page.checkpoints, Page.binary, Page.pictures = server, checkpoints, options.binary, options.pictures
        Page.driver = browser()
        try:
            result = unittest.main(argv=sys.argv[:1], exit=False, verbosity=2, warnings="ignore").result
        finally:
            Page.driver.quit()
    sys.exit(not result.wasSuccessful())


if __name__ == "__main__":
    main()
