local health = { status = "Progressing", message = "Waiting for the controller" }

if obj.metadata.deletionTimestamp ~= nil then
  health.message = "Being deleted"
  return health
end

if obj.status == nil or obj.status.conditions == nil then
  return health
end

if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "Waiting for the controller to see generation " .. tostring(obj.metadata.generation)
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions) do
  conditions[condition.type] = condition
end

local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end
