-- wrk: every request posts the file that BODY names; HEAD: the length of the JSON before its binary tensors
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local head = os.getenv("HEAD")
if head and head ~= "" then
  wrk.headers["Content-Type"] = "application/octet-stream"
  wrk.headers["Inference-Header-Content-Length"] = head
end
local file = io.open(os.getenv("BODY"), "rb")
wrk.body = file:read("*a")
file:close()
